"""The remote tier on a real cluster."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

import pytest

from app.cache.cluster import ClusterClient, ShardUnavailableError
from app.cache.connection import connect
from app.cache.entry import Entry
from app.cache.remote import Grant, RemoteCache, Stored, counts_as_failure
from app.cache.wakeups import Wakeups
from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.embedded.cluster import EmbeddedClusterNode, EmbeddedRedisCluster
from app.lab.simulation.recorded_events import RecordedEvents
from tests.held_up import hold_up
from tests.ticks import Ticks

TIMEOUT_S = 0.25
PATIENT_S = 5.0
"""For what is not about losses: a node that is slow is none."""
KEYS = [str(number) for number in range(60)]


class Rig:
    def __init__(self, cluster: EmbeddedRedisCluster, timeout_s: float) -> None:
        client = connect(cluster.url(), connections=16, timeout_s=timeout_s, failures=3, open_s=0.2)
        assert isinstance(client, ClusterClient)
        self.client = client
        self.events = RecordedEvents()
        self.breaker = CircuitBreaker(failures=5, open_s=0.2, counts=counts_as_failure)
        self.remote = RemoteCache(
            client, prefix="t", breaker=self.breaker, timeout_s=timeout_s, events=self.events, lease_s=10.0
        )

    async def until_answered(self) -> None:
        async with asyncio.timeout(30):
            while not await self.remote.answers():  # noqa: ASYNC110 - what it asks is another process
                await asyncio.sleep(0.02)

    def primary(self, cluster: EmbeddedRedisCluster, key: str) -> EmbeddedClusterNode:
        return cluster.primary_of(self.remote.names(key)[0])


@pytest.fixture
async def rig(redis_cluster: EmbeddedRedisCluster) -> AsyncIterator[Rig]:
    made = Rig(redis_cluster, PATIENT_S)
    await made.until_answered()
    yield made
    await made.remote.aclose()


def entry(text: str = "x", version: int = 1) -> Entry:
    return Entry(text.encode(), version, created_at=time.time(), ttl_s=60.0, load_cost_s=0.01)


async def test_every_operation_works_on_every_shard_and_loads_its_script_where_it_is_new(
    rig: Rig, redis_cluster: EmbeddedRedisCluster
) -> None:
    for node in redis_cluster.nodes:
        node.ask("SCRIPT", "FLUSH")
    for key in KEYS:
        taken = await rig.remote.take(key, "token", now=time.time())
        assert taken is not None
        assert taken.grant is Grant.WON
        lost = await rig.remote.take(key, "other", now=time.time())
        assert lost is not None
        assert lost.grant is Grant.LOST
        assert await rig.remote.put(key, entry(key), "token") is Stored.STORED
        got = await rig.remote.get(key)
        assert got is not None
        assert got.payload == key.encode()
        assert await rig.remote.invalidate(key, 2)
        assert await rig.remote.get(key) is None
        assert await rig.remote.put(key, entry(key)) is Stored.PAST
        await rig.remote.take(key, "token", now=time.time())
    await rig.remote.release(*((key, "token") for key in KEYS))
    for key in KEYS:
        again = await rig.remote.take(key, "other", now=time.time())
        assert again is not None
        assert again.grant is Grant.WON
    assert not rig.events.counts
    assert len({rig.primary(redis_cluster, key).port for key in KEYS}) == 3


async def test_a_sweep_reaches_every_shard(rig: Rig) -> None:
    for key in KEYS:
        await rig.remote.put(key, entry())
    assert await rig.remote.probe([], sweep=True)
    assert [await rig.remote.get(key) for key in KEYS] == [None] * len(KEYS)


async def test_what_a_script_publishes_on_one_shard_wakes_a_waiter_subscribed_at_another(rig: Rig) -> None:
    up = asyncio.Event()
    wakeups = Wakeups(rig.client, rig.remote.channel, ping_s=PATIENT_S, on_state=lambda _: up.set())
    wakeups.start()
    try:
        async with asyncio.timeout(30):
            await up.wait()
            for key in KEYS[:12]:
                with wakeups.expected(key) as woken:
                    await rig.remote.take(key, "token", now=time.time())
                    await rig.remote.put(key, entry(), "token")
                    await woken.wait()
    finally:
        await wakeups.aclose()


async def test_a_slot_that_was_moved_is_followed(rig: Rig, redis_cluster: EmbeddedRedisCluster) -> None:
    key = KEYS[0]
    await rig.remote.put(key, entry())
    name = rig.remote.names(key)[0]
    source = redis_cluster.primary_of(name)
    slot = source.ask("CLUSTER", "KEYSLOT", name)
    target = next(node for node in map(redis_cluster.primary_of, KEYS) if node is not source)
    source_id, target_id = source.ask("CLUSTER", "MYID"), target.ask("CLUSTER", "MYID")

    def move(giver: EmbeddedClusterNode, giver_id: str, taker: EmbeddedClusterNode, taker_id: str) -> None:
        taker.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", giver_id)
        giver.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", taker_id)

    def moved(giver: EmbeddedClusterNode, taker: EmbeddedClusterNode, taker_id: str) -> None:
        for node in (taker, giver):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", taker_id)

    move(source, source_id, target, target_id)
    try:
        source.ask("MIGRATE", target.host, str(target.port), name, "0", "1000")
        assert await rig.remote.get(key) is not None, "by ASK"
        moved(source, target, target_id)
        assert await rig.remote.get(key) is not None, "by MOVED"
        assert await rig.remote.put(key, entry(version=2)) is Stored.STORED
        assert not rig.events.counts
    finally:
        target.ask("DEL", name)
        move(target, target_id, source, source_id)
        moved(target, source, source_id)


async def test_an_answer_that_came_while_this_process_could_not_run_is_taken(
    redis_cluster: EmbeddedRedisCluster,
) -> None:
    """Interleaving: a node is asked and answers; the loop is held up past the time to answer, and goes on."""
    rig = Rig(redis_cluster, TIMEOUT_S)
    await rig.until_answered()
    primary = redis_cluster.primary_of("{1}")
    node = rig.client._node((primary.host, primary.port))
    connection = node.client.connection_pool._available_connections[-1]
    primary.suspend()
    hold_up(connection._writer, 2 * TIMEOUT_S, let_answer=primary.resume)
    try:
        assert await rig.client.get("{1}") is None
    finally:
        await rig.remote.aclose()


@pytest.mark.parametrize("way", ["killed", "hung"])
async def test_a_lost_primary_costs_its_own_keys_only_and_they_come_back_with_its_replica(
    redis_cluster: EmbeddedRedisCluster, way: str
) -> None:
    timeout_s = 1.0
    rig = Rig(redis_cluster, timeout_s)
    await rig.until_answered()
    changes = []
    rig.client.on_change = lambda: changes.append(1)
    for key in KEYS:
        await rig.remote.put(key, entry())
    lost = rig.primary(redis_cluster, KEYS[0])
    its = {key for key in KEYS if rig.primary(redis_cluster, key) is lost}
    # Asked over the connection that wrote, or it would wait for nothing; the pool gives the one used last.
    assert await rig.client._node((lost.host, lost.port)).client.execute_command("WAIT", 1, 10_000) == 1
    began = time.monotonic()
    await asyncio.to_thread(lost.kill if way == "killed" else lost.suspend)
    longest_s, missed = 0.0, 0
    try:
        back_at = None
        async with asyncio.timeout(60), Ticks() as ticks:
            for key in itertools.cycle(KEYS):
                asked, asked_s = time.monotonic(), ticks.seconds
                got = await rig.remote.get(key)
                longest_s = max(longest_s, ticks.seconds - asked_s)
                if key not in its:
                    assert got is not None, "another shard's"
                elif got is None:
                    missed, back_at = missed + 1, None
                else:
                    back_at = back_at or asked
                    if missed and asked - back_at > 0.3:
                        break
                await asyncio.sleep(0.002)
        assert back_at is not None
        print(f"{way}: {missed} missed, back after {back_at - began:.2f} s, longest {1000 * longest_s:.0f} ms")
        assert rig.breaker.state is BreakerState.CLOSED
        assert longest_s < 1.3 * timeout_s + 0.1, "as long as a fair timeout may be"
        assert changes
        assert {key for key in its if await rig.remote.get(key) is None} == set(), "its replica had them"
    finally:
        await asyncio.to_thread(lost.start if way == "killed" else lost.resume)
        await rig.remote.aclose()


async def test_a_lost_shard_is_no_failure_of_redis_but_the_loss_of_all_is(redis_cluster: EmbeddedRedisCluster) -> None:
    rig = Rig(redis_cluster, TIMEOUT_S)
    try:
        await rig.until_answered()
        for node in redis_cluster.nodes:
            node.suspend()
        with pytest.raises(ShardUnavailableError):
            await rig.client.get("{1}")
        async with asyncio.timeout(60):
            while rig.breaker.state is not BreakerState.OPEN:
                await asyncio.gather(*(rig.remote.get(key) for key in KEYS))
        assert not await rig.remote.answers()
        assert not await rig.remote.probe([], sweep=False)
    finally:
        for node in redis_cluster.nodes:
            node.resume()
    async with asyncio.timeout(60):
        while not await rig.remote.probe([(key, 1) for key in KEYS], sweep=False):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
    assert rig.remote.is_available
    await rig.remote.aclose()


async def test_a_cluster_that_is_not_there_is_as_no_redis(redis_cluster: EmbeddedRedisCluster) -> None:
    client = connect("redis+cluster://127.0.0.1:1,127.0.0.1:2", connections=2, timeout_s=TIMEOUT_S)
    remote = RemoteCache(
        client,
        prefix="t",
        breaker=CircuitBreaker(failures=2, counts=counts_as_failure),
        timeout_s=TIMEOUT_S,
        events=RecordedEvents(),
    )
    for _ in range(2):
        assert await remote.take("1", "token", now=0.0) is None
    assert not remote.is_available
    await remote.aclose()
