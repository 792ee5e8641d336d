from __future__ import annotations

from pathlib import Path

import pytest
from redis.crc import key_slot

from app.embedded import process_table
from app.embedded.cluster import PRIMARIES, SLOTS, EmbeddedClusterNode, EmbeddedRedisCluster, slot_of
from app.embedded.errors import EmbeddedError


@pytest.fixture
def cluster(redis_cluster: EmbeddedRedisCluster) -> EmbeddedRedisCluster:
    return redis_cluster


def home(node: EmbeddedClusterNode) -> Path:
    return Path(f"/proc/{node.pid}/cwd").readlink().parent


def test_three_primaries_share_all_slots_and_each_has_a_replica(cluster: EmbeddedRedisCluster) -> None:
    members = cluster.nodes[0].members()
    primaries = {member.id: member for member in members if "master" in member.flags}
    followed = [member.primary for member in members if "slave" in member.flags]
    assert len(primaries) == PRIMARIES
    assert sorted(followed) == sorted(primaries)
    assert sorted(slot for one in primaries.values() for slots in one.slots for slot in slots) == list(range(SLOTS))


def test_a_key_lies_where_the_clusters_own_rule_puts_it(cluster: EmbeddedRedisCluster) -> None:
    for key in ("1", "a{tag}b", "{}", "{", "a{}b", "a{b", "a{b}{c}", "prefix:1:{17}:lease"):
        assert slot_of(key) == key_slot(key.encode())
        assert int(cluster.nodes[-1].ask("CLUSTER", "KEYSLOT", key)) == slot_of(key)
        cluster.primary_of(key).ask("SET", key, "x")


def test_the_replica_of_a_killed_primary_takes_over_with_its_data(cluster: EmbeddedRedisCluster) -> None:
    primary = cluster.primary_of("{1}")
    primary.ask("SET", "{1}", "kept")
    primary.ask("WAIT", "1", "2000")
    primary.kill()
    cluster.wait_taken_over(primary)
    assert cluster.primary_of("{1}") is not primary
    assert cluster.primary_of("{1}").ask("GET", "{1}") == "kept"
    port = primary.port
    primary.start()
    assert primary.port == port
    cluster.wait_in_step()
    assert cluster.primary_of("{1}") is not primary


def test_the_replica_of_a_hung_primary_takes_over(cluster: EmbeddedRedisCluster) -> None:
    primary = cluster.primary_of("{2}")
    primary.suspend()
    try:
        cluster.wait_taken_over(primary)
        assert cluster.primary_of("{2}") is not primary
    finally:
        primary.resume()


def test_a_lost_shard_takes_nothing_from_the_others(cluster: EmbeddedRedisCluster) -> None:
    keys = [f"{{{number}}}" for number in range(20)]
    lost = cluster.primary_of(keys[0])
    others = {key: cluster.primary_of(key) for key in keys}
    lost.kill()
    try:
        for key, primary in others.items():
            if primary is not lost:
                primary.ask("SET", key, "x")
    finally:
        cluster.wait_taken_over(lost)
        lost.start()


def test_an_error_is_said_with_the_command(cluster: EmbeddedRedisCluster) -> None:
    with pytest.raises(EmbeddedError, match="CLUSTER NONSENSE: ERR"):
        cluster.nodes[0].ask("CLUSTER", "NONSENSE")


def test_stop_leaves_no_process_and_no_file_even_of_killed_and_suspended_nodes() -> None:
    cluster = EmbeddedRedisCluster()
    with pytest.raises(EmbeddedError, match="was not started"):
        _ = cluster.nodes[0].bus_port
    cluster.start()
    homes = [home(node) for node in cluster.nodes]
    pids = [node.pid for node in cluster.nodes]
    assert all(directory.exists() for directory in homes)
    cluster.nodes[0].kill()
    cluster.nodes[1].suspend()
    cluster.stop()
    cluster.stop()
    assert not any(process_table.is_running(pid) for pid in pids)
    assert not any(directory.exists() for directory in homes)
