from __future__ import annotations

import pytest
from redis.asyncio.connection import SSLConnection

from app.cache.cluster import ClusterClient
from app.cache.connection import connect
from app.cache.slots import SLOTS, Address, SlotMap, SlotRange, newest

A: Address = ("10.0.0.1", 7001)
B: Address = ("10.0.0.2", 7002)
C: Address = ("10.0.0.3", 7003)
LAST = SLOTS - 1


def shape(epoch: int, *ranges: tuple[int, int, Address]) -> SlotMap:
    return SlotMap(epoch, tuple(SlotRange(*each) for each in ranges))


def test_a_slot_is_found_in_its_range_and_nowhere_else() -> None:
    cluster = shape(1, (200, LAST, B), (0, 99, A))
    assert [cluster.primary(slot) for slot in (0, 99, 100, 199, 200, LAST)] == [A, A, None, None, B, B]
    assert not cluster.is_complete
    assert shape(1, (0, 99, A), (100, LAST, B)).is_complete
    assert shape(1).primary(0) is None


def test_the_answer_of_a_node_that_does_not_know_its_own_host_means_that_host() -> None:
    info = b"cluster_state:ok\r\ncluster_current_epoch:7\r\n"
    slots = [[0, LAST, [b"", 7001, b"id", []], [b"10.0.0.2", 7002, b"id"], ["?", 7003, "id"]]]
    told = SlotMap.parse(slots, info, ("host", 1))
    assert told == SlotMap(7, (SlotRange(0, LAST, ("host", 7001), (B, ("host", 7003))),))
    assert told.nodes == {("host", 7001), B, ("host", 7003)}


@pytest.mark.parametrize("slots", [None, [None], [[0]], [[0, 1, None]], [[0, 1, []]]])
def test_what_is_no_answer_is_an_error(slots: object) -> None:
    with pytest.raises(ValueError, match=r"map|unpack"):
        SlotMap.parse(slots, b"cluster_current_epoch:1\r\n", A)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="map"):
        SlotMap.parse([], b"cluster_state:ok\r\n", A)


def test_the_latest_epoch_counts_and_in_it_what_most_say() -> None:
    old, new, odd = shape(1, (0, LAST, A)), shape(2, (0, LAST, B)), shape(2, (0, LAST, C))
    assert newest([old, old, new], None) is new
    assert newest([old, odd, new, new], old) == new
    assert newest([None, None], old) is old
    assert newest([None], None) is None
    assert newest([shape(3)], old) is old


def test_a_node_that_was_cut_off_and_alone_answers_does_not_turn_time_back() -> None:
    old, new = shape(1, (0, LAST, A)), shape(2, (0, LAST, B))
    assert newest([old, None, None], new) is new
    assert newest([old, old, None], new) is old


def test_a_cluster_is_made_of_a_url_with_one_node_or_more() -> None:
    client = connect("rediss+cluster://me:p%40ss@h1:1,[::1]:2,h3/?protocol=2", connections=1, timeout_s=1.0)
    assert isinstance(client, ClusterClient)
    assert client._nodes.keys() == {("h1", 1), ("::1", 2), ("h3", 6379)}
    made = client._nodes["::1", 2].client.connection_pool
    assert made.connection_kwargs["host"] == "::1"
    assert made.connection_kwargs["password"] == "p@ss"
    assert issubclass(made.connection_class, SSLConnection)
    for wrong in ("redis+cluster://", "redis+cluster://a:b", "x+cluster://a:1", "redis+cluster://a,,b"):
        with pytest.raises(ValueError, match="redis"):
            connect(wrong, connections=1, timeout_s=1.0)
