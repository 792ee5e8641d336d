from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.exceptions import RedisError, ResponseError

from app.cache.entry import Entry, encode
from app.cache.remote import Stored, counts_as_failure
from app.cache.scripts import DISCARD
from app.concurrency.breaker import BreakerState
from app.embedded.redis import EmbeddedRedis
from tests.cache.conftest import OpenRemote, RemoteRig
from tests.ticks import Ticks


def entry(text: str, version: int = 1, ttl_s: float = 60.0) -> Entry:
    return Entry(text.encode(), version, created_at=1_000.0, ttl_s=ttl_s, load_cost_s=0.01)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_what_was_put_is_got_over_either_protocol(open_remote: OpenRemote, redis_url: str, protocol: int) -> None:
    rig = open_remote(redis_url, protocol=protocol, timeout_s=5.0)
    assert await rig.remote.get("1") is None
    assert await rig.remote.put("1", entry("one")) is Stored.STORED
    assert await rig.remote.get("1") == entry("one")
    assert await rig.remote.put("1", entry("older", version=0)) is Stored.PAST
    assert not rig.events.counts


async def test_the_key_carries_prefix_and_format_and_lies_in_one_slot_of_a_cluster(rig: RemoteRig) -> None:
    await rig.remote.put("17", entry("x"))
    assert await rig.client.keys() == [b"t:1:{17}"]


async def test_the_entry_lives_in_redis_as_long_as_it_says(rig: RemoteRig) -> None:
    await rig.remote.put("1", entry("x", ttl_s=1_250.5))
    assert 1_150_000 < await rig.client.pttl(rig.remote.names("1")[0]) <= 1_250_500


async def test_a_life_shorter_than_redis_can_tell_is_no_error(rig: RemoteRig) -> None:
    assert await rig.remote.put("1", entry("x", ttl_s=0.0001)) is Stored.STORED
    assert not rig.events.counts


async def test_an_older_version_never_takes_the_place_of_a_newer_one(rig: RemoteRig) -> None:
    await rig.remote.put("1", entry("new", version=10))
    assert await rig.remote.put("1", entry("old", version=9)) is Stored.PAST
    assert (await rig.remote.get("1")) == entry("new", version=10)


async def test_the_same_version_is_put_anew(rig: RemoteRig) -> None:
    await rig.remote.put("1", entry("x", version=3, ttl_s=5))
    assert await rig.remote.put("1", entry("x", version=3, ttl_s=50)) is Stored.STORED
    assert await rig.client.pttl(rig.remote.names("1")[0]) > 5_000


async def test_a_tombstone_is_got_as_one_and_keeps_out_what_was_deleted(rig: RemoteRig) -> None:
    tombstone = Entry(None, 4, created_at=1.0, ttl_s=10.0, load_cost_s=0.0)
    await rig.remote.put("1", entry("x", version=3))
    assert await rig.remote.put("1", tombstone) is Stored.STORED
    assert await rig.remote.put("1", entry("x", version=3)) is Stored.PAST
    assert await rig.remote.get("1") == tombstone
    assert await rig.remote.put("1", entry("created again", version=5)) is Stored.STORED


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"tc1 99", id="a header cut short"),
        pytest.param(encode(entry("some words", version=1))[:-3], id="a body cut short"),
        pytest.param(encode(entry("some words")).replace(b"words", b"swords"), id="altered"),
        pytest.param(b"tc0 1 1.0 1.0 1.0 1 00000000\nx", id="an older format"),
        pytest.param(b"tc2 9 1.0 1.0 1.0 1 00000000\nx", id="a newer format"),
        pytest.param(b'{"id":1,"name":"x"}', id="something else"),
        pytest.param(bytes(range(256)) * 40, id="binary"),
    ],
)
async def test_a_value_that_cannot_be_read_is_a_miss_and_is_replaced(rig: RemoteRig, stored: bytes) -> None:
    await rig.client.set(rig.remote.names("1")[0], stored)
    assert await rig.remote.get("1") is None
    assert rig.events.counts == {"failed decode": 1}
    assert await rig.remote.put("1", entry("good", version=1)) is Stored.STORED
    assert await rig.remote.get("1") == entry("good", version=1)


@pytest.mark.parametrize("version", ["9" * 400, "99999999999999999999", "18446744073709551616"])
async def test_a_corrupt_value_that_claims_a_huge_version_is_replaced_all_the_same(
    rig: RemoteRig, version: str
) -> None:
    await rig.client.set(rig.remote.names("1")[0], f"tc1 {version} rubbish")
    assert await rig.remote.get("1") is None
    assert await rig.remote.put("1", entry("good")) is Stored.STORED
    assert await rig.remote.get("1") == entry("good")


async def test_a_truncated_value_of_a_newer_version_does_not_bar_the_place_until_it_expires(rig: RemoteRig) -> None:
    await rig.client.set(rig.remote.names("1")[0], encode(entry("some words", version=7))[:-3])
    assert await rig.remote.get("1") is None
    assert await rig.remote.put("1", entry("good", version=6)) is Stored.STORED
    assert await rig.remote.get("1") == entry("good", version=6)


async def test_a_good_value_put_between_the_reading_of_a_corrupt_one_and_its_removal_stays(rig: RemoteRig) -> None:
    await rig.client.set(rig.remote.names("1")[0], b"corrupt")
    await rig.remote.put("1", entry("good"))
    discard = rig.client.register_script(DISCARD)
    assert await discard(keys=[rig.remote.names("1")[0]], args=[b"corrupt"]) == 0
    assert await rig.remote.get("1") == entry("good")


async def test_a_value_of_another_type_is_a_miss_and_is_replaced(rig: RemoteRig) -> None:
    await rig.client.rpush(rig.remote.names("1")[0], "a", "list")
    assert await rig.remote.get("1") is None
    assert rig.events.counts == {"failed get": 1}
    assert rig.breaker.state is BreakerState.CLOSED
    assert await rig.remote.put("1", entry("good")) is Stored.STORED
    assert await rig.remote.get("1") == entry("good")


async def test_a_script_that_redis_has_forgotten_is_sent_again(rig: RemoteRig) -> None:
    await rig.remote.put("1", entry("x"))
    await rig.client.script_flush()
    assert await rig.remote.put("2", entry("y")) is Stored.STORED
    assert await rig.remote.get("2") == entry("y")


async def test_an_answer_that_is_an_error_proves_the_link_and_opens_no_breaker(rig: RemoteRig) -> None:
    await rig.client.rpush(rig.remote.names("1")[0], "a", "list")
    for _ in range(20):
        assert await rig.remote.get("1") is None
    assert rig.breaker.state is BreakerState.CLOSED
    assert not counts_as_failure(ResponseError())
    assert counts_as_failure(RedisError())


async def test_no_server_is_counted_and_never_raised_and_after_five_failures_no_longer_asked(
    open_remote: OpenRemote, own_redis: Callable[..., EmbeddedRedis]
) -> None:
    server = own_redis()
    rig = open_remote(server.url())
    server.stop()
    for _ in range(5):
        assert await rig.remote.get("1") is None
    assert await rig.remote.put("1", entry("x")) is Stored.UNAVAILABLE
    assert rig.breaker.state is BreakerState.OPEN
    assert rig.events.counts == {"failed get": 5}
    assert not await rig.remote.answers()


async def test_a_server_that_hangs_costs_each_caller_the_timeout_and_no_more(
    open_remote: OpenRemote, own_redis: Callable[..., EmbeddedRedis]
) -> None:
    server = own_redis()
    rig = open_remote(server.url(), timeout_s=0.1, pool_max=2, failures=1000)
    await rig.client.set(rig.remote.names("1")[0], encode(entry("x")))
    server.suspend()
    async with Ticks() as ticks:
        # More callers than connections: waiting for one and waiting for an answer have one bound between them.
        assert await asyncio.gather(*(rig.remote.get("1") for _ in range(100))) == [None] * 100
    assert ticks.seconds < 2.5, "by turns it would be 5 s"
    assert rig.events.counts == {"failed get": 100}
    server.resume()
    async with asyncio.timeout(30):
        while await rig.remote.get("1") is None:  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(0.01)


async def test_a_pool_with_no_room_for_a_crowd_makes_it_wait_and_loses_nobody(
    open_remote: OpenRemote, redis_url: str
) -> None:
    rig = open_remote(redis_url, timeout_s=5.0, pool_max=2)
    await rig.remote.put("1", entry("x"))
    assert await asyncio.gather(*(rig.remote.get("1") for _ in range(300))) == [entry("x")] * 300


async def test_a_cancelled_command_never_gives_its_reply_to_another_caller(
    open_remote: OpenRemote, own_redis: Callable[..., EmbeddedRedis]
) -> None:
    """A stopped server keeps commands in hand; each round cancels them at another step, then asks for other keys."""
    server = own_redis()
    rig = open_remote(server.url(), timeout_s=5.0, pool_max=4)
    keys = [str(number) for number in range(1, 9)]
    for key in keys:
        await rig.remote.put(key, entry(f"value of {key}", version=int(key)))
    for steps in range(30):
        server.suspend()
        victims: list[asyncio.Task[object]] = [asyncio.create_task(rig.remote.get(key)) for key in keys[:4]]
        victims.append(asyncio.create_task(rig.remote.put("8", entry("value of 8", version=8))))
        for _ in range(steps):
            await asyncio.sleep(0)
        for victim in victims:
            victim.cancel()
        await asyncio.wait(victims, timeout=30.0)
        assert all(victim.cancelled() for victim in victims)
        server.resume()
        found = await asyncio.gather(*(rig.remote.get(key) for key in keys))
        assert [one and one.payload for one in found] == [f"value of {key}".encode() for key in keys]
    assert not rig.events.counts
    assert rig.breaker.state is BreakerState.CLOSED


async def test_cancelled_callers_give_their_connections_back(open_remote: OpenRemote, redis_url: str) -> None:
    """Callers are cancelled while they wait for a connection, while they hold one, and as they give it back."""
    rig = open_remote(redis_url, timeout_s=60.0, pool_max=2)
    await rig.remote.put("1", entry("x"))
    for steps in range(60):
        crowd = [asyncio.create_task(rig.remote.get("1")) for _ in range(12)]
        for _ in range(steps % 30):
            await asyncio.sleep(0)
        if steps >= 30:
            await asyncio.sleep(0.001)
        for one in crowd[:: 1 + steps % 3]:
            one.cancel()
        outcomes = await asyncio.gather(*crowd, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) or one == entry("x") for one in outcomes)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*(rig.remote.get("1") for _ in range(20))) == [entry("x")] * 20
    assert not rig.events.counts
