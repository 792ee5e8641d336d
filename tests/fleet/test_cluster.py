"""The fleet on a cluster in Redis' place, and what the loss of one of its primaries costs.

How old an answer can be then: in mode `full`, a process that was there when a change was announced never serves what
was before it, whatever the cluster has lost. The replica that takes over may lack the last writes of the primary, and
with them floors and leases: then a process that began after the announcement, and any process in mode `fleet`, may be
given what was before the change for one TTL from its load (and the grace after it), as if nobody had been told.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from app.embedded.cluster import EmbeddedClusterNode, EmbeddedRedisCluster
from tests.fleet.database import FleetDatabase
from tests.fleet.fleet import Answer, Fleet

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORKERS = 3
CALLERS = 50
LOAD_MS = 100
PREFIX = "cluster"
MOST_AWAY_S = 4.0
"""What it may take until a replica has taken over and all know."""
LONG_LEASE_S = 30.0
SHARD_LOST = {"redis_timeout_s": 0.25, "soft_deadline_s": 0.5}
"""Who loses a primary is to find out as soon as by default."""

Open = Callable[..., contextlib.AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def open_fleet(fleet_settings: dict[str, Any], redis_cluster: EmbeddedRedisCluster) -> Open:
    @contextlib.asynccontextmanager
    async def open_(mode: str, **settings: Any) -> AsyncIterator[Fleet]:
        given = {
            **fleet_settings,
            "mode": mode,
            "redis_url": redis_cluster.url(),
            "cache_key_prefix": PREFIX,
            "cache_ttl_jitter": 0.0,
            "early_refresh_beta": 0.0,
            **settings,
        }
        async with Fleet(WORKERS, given) as fleet:
            yield fleet

    return open_


def primary_of(cluster: EmbeddedRedisCluster, key: int) -> EmbeddedClusterNode:
    return cluster.primary_of(f"{{{key}}}")


@pytest.mark.parametrize("mode", ["fleet", "full"])
async def test_a_cold_key_of_any_shard_costs_one_load_and_wakes_who_waits(
    open_fleet: Open, redis_cluster: EmbeddedRedisCluster, cold_keys: Iterator[int], mode: str
) -> None:
    async with open_fleet(mode, lease_s=LONG_LEASE_S) as fleet:
        await fleet.delay(LOAD_MS)
        shards: dict[int, int] = {}
        while len(shards) < 3:
            key = next(cold_keys)
            shards.setdefault(primary_of(redis_cluster, key).port, key)
        for key in shards.values():
            answers = [answer for worker in await fleet.read([key], callers=CALLERS) for answer in worker]
            assert len(answers) == WORKERS * CALLERS
            assert {answer.error for answer in answers} == {""}
            (load,) = fleet.told.loads_of(key)
            assert load.ended is not None
            # Woken, and not by the lease's end.
            assert max(answer.answered for answer in answers) - load.ended < LONG_LEASE_S / 6


@pytest.mark.parametrize("mode", ["fleet", "full"])
async def test_a_write_is_seen_by_all_at_once(open_fleet: Open, cold_keys: Iterator[int], mode: str) -> None:
    async with open_fleet(mode, l1_enabled=False) as fleet:
        await fleet.delay(0)
        for key in itertools.islice(cold_keys, 6):
            await fleet.read([key])
            written = await fleet.workers[0].call("write", key=key, body="new")
            answers = [answer for worker in await fleet.read([key]) for answer in worker]
            assert {answer.version for answer in answers} == {written["version"]}


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "way"), [("fleet", "killed"), ("full", "killed"), ("full", "hung")])
async def test_the_loss_of_a_primary_under_load_fails_no_request_and_costs_loads_of_its_own_keys_only(
    open_fleet: Open,
    redis_cluster: EmbeddedRedisCluster,
    database: FleetDatabase,
    cold_keys: Iterator[int],
    mode: str,
    way: str,
) -> None:
    ttl_s, seconds, rate = 1.0, 7.0, 150.0
    keys = list(itertools.islice(cold_keys, 30))
    async with open_fleet(mode, cache_ttl_s=ttl_s, grace_s=0, lease_s=1.5, **SHARD_LOST) as fleet:
        await fleet.delay(20)
        await fleet.read(keys)
        lost = primary_of(redis_cluster, keys[0])
        its = {key for key in keys if primary_of(redis_cluster, key) is lost}
        assert 0 < len(its) < len(keys)
        at = time.monotonic() + 0.1
        driven = [asyncio.create_task(each.drive(keys, rate=rate, seconds=seconds, at=at)) for each in fleet.workers]
        writes: dict[int, list[tuple[float, int]]] = defaultdict(list)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(lost.kill if way == "killed" else lost.suspend)
        try:
            for key in itertools.islice(itertools.cycle(keys), 60):
                version = await database.rewrite(key, "new")
                writes[key].append((time.monotonic(), version))
                await asyncio.sleep(0.05)
            by_worker = await asyncio.gather(*driven)
        finally:
            await asyncio.to_thread(lost.start if way == "killed" else lost.resume)
        ended = time.monotonic()
        answers = [answer for each in by_worker for answer in each]
        assert len(answers) == WORKERS * rate * seconds
        assert {answer.error for answer in answers} == {""}
        lives = (ended - at) / ttl_s + 1
        loads = {key: sum(load.began >= at for load in fleet.told.loads_of(key)) for key in keys}
        others = sum(loads[key] for key in keys if key not in its)
        # Without what a worker that could not run has added by that.
        told = [(each, worker.held_up_s) for each, worker in zip(by_worker, fleet.workers, strict=True)]
        oldest_s = max(max(_ages(each, writes)) - held_up_s for each, held_up_s in told)
        slowest_s = max(max(answer.took_s for answer in each) - held_up_s for each, held_up_s in told)
        print(
            f"{mode}, {way}: {sum(loads[key] for key in its)} loads of its {len(its)} keys, {others} of the others'; "
            f"{lives:.1f} lives; oldest answer {1000 * oldest_s:.0f} ms, slowest {1000 * slowest_s:.0f} ms"
        )
        for key in keys:
            if mode == "full":
                most = (WORKERS if key in its else 1) * (lives + len(writes[key]))
            else:  # without L1, each process shares only what is read at one time
                most = lives + (WORKERS * rate / len(keys) * MOST_AWAY_S if key in its else 0)
            assert loads[key] <= most + 1
        assert oldest_s <= (ttl_s + 0.3 if mode == "fleet" else 0.3)
        assert slowest_s < 1.0
        for worker in fleet.workers:
            assert (await worker.call("sample", name="breaker_state", labels={"name": "redis"}))["value"] == 0
    redis_cluster.wait_in_step()


async def test_who_waits_on_a_lease_whose_shard_is_lost_does_not_wait_for_its_end(
    open_fleet: Open, redis_cluster: EmbeddedRedisCluster, database: FleetDatabase, cold_keys: Iterator[int]
) -> None:
    # The holder's load ends while there is no primary to put the value, and the lease lives on with the replica.
    key = next(cold_keys)
    async with open_fleet("fleet", lease_s=LONG_LEASE_S, **SHARD_LOST) as fleet:
        holder, waiter = fleet.workers[:2]
        lost = primary_of(redis_cluster, key)
        async with database.loads_held():
            holding = asyncio.create_task(holder.read([key]))
            await database.until_under_way(1)
            waiting = asyncio.create_task(waiter.read([key]))
            await waiter.until_total(1, "cache_lease_total", end="waited")
            lost.ask("WAIT", "1", "1000")
            await asyncio.to_thread(lost.kill)
        try:
            (held,), (waited,) = await holding, await waiting
            print(f"the waiter was answered after {waited.took_s:.2f} s, the holder after {held.took_s:.2f} s")
            assert held.error == waited.error == ""
            assert waited.took_s < LONG_LEASE_S / 2
            await asyncio.to_thread(redis_cluster.wait_taken_over, lost)
            async with asyncio.timeout(LONG_LEASE_S / 2):
                while primary_of(redis_cluster, key).ask("EXISTS", f"{PREFIX}:1:{{{key}}}:lease") != "0":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            await asyncio.to_thread(lost.start)
    redis_cluster.wait_in_step()


@pytest.mark.slow
async def test_a_change_that_the_cluster_forgot_is_past_for_all_who_heard_it_and_for_others_after_one_ttl(
    open_fleet: Open, redis_cluster: EmbeddedRedisCluster, database: FleetDatabase, cold_keys: Iterator[int]
) -> None:
    # The replica is cut off while the value is removed, and takes over with what was before: the floor is lost.
    ttl_s, key = 10.0, next(cold_keys)
    async with open_fleet("full", cache_ttl_s=ttl_s, grace_s=0, **SHARD_LOST) as fleet:
        await fleet.delay(0)
        (first,) = await fleet.workers[0].read([key])
        loaded_at = time.monotonic()
        lost = primary_of(redis_cluster, key)
        lost.ask("WAIT", "1", "2000")
        replica = _replica_of(redis_cluster, lost)
        replica.suspend()
        lost.ask("CLIENT", "KILL", "TYPE", "replica")
        try:
            version = await database.rewrite(key, "new")
            await fleet.told.until_seen(key, version, range(WORKERS))
            async with asyncio.timeout(5):
                while not lost.ask("GET", f"{PREFIX}:1:{{{key}}}:floor"):  # noqa: ASYNC110 - another process' doing
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(lost.kill)
        finally:
            replica.resume()
        try:
            await asyncio.to_thread(redis_cluster.wait_taken_over, lost)
            assert primary_of(redis_cluster, key) is replica
            newcomer = fleet.workers[2]
            await newcomer.kill()
            await newcomer.start()
            (answer,) = await newcomer.read([key])
            print(f"{time.monotonic() - loaded_at:.1f} s after its load, a newcomer was given version {answer.version}")
            assert answer.version == first.version, "else this test has not shown the loss"
            for worker in fleet.workers[:2]:
                (answer,) = await worker.read([key])
                assert answer.version == version
            await asyncio.sleep(max(0.0, loaded_at + ttl_s + 0.1 - time.monotonic()))
            answers = [answer for worker in await fleet.read([key]) for answer in worker]
            assert {answer.version for answer in answers} == {version}
        finally:
            await asyncio.to_thread(lost.start)
    redis_cluster.wait_in_step()


def _replica_of(cluster: EmbeddedRedisCluster, primary: EmbeddedClusterNode) -> EmbeddedClusterNode:
    members = primary.members()
    mine = next(member.id for member in members if "myself" in member.flags)
    port = next(member.port for member in members if member.primary == mine)
    return next(node for node in cluster.nodes if node.port == port)


def _ages(answers: list[Answer], writes: dict[int, list[tuple[float, int]]]) -> Iterator[float]:
    """For each answer, for how long what it said had been past when it was asked for; 0 where it was not."""
    for answer in answers:
        replaced = [at for at, version in writes[answer.key] if version > answer.version]
        yield max(0.0, answer.asked - min(replaced)) if replaced else 0.0
