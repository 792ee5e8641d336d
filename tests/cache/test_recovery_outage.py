"""What Redis is told after it was away, on servers that are killed and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from app.cache.entry import Entry
from app.cache.recovery import Recovery
from app.cache.remote import Grant, RemoteCache, Stored
from app.concurrency.breaker import BreakerState
from app.embedded.redis import EmbeddedRedis
from tests.cache.conftest import OpenRemote, RemoteRig
from tests.ticks import Ticks

OwnRedis = Callable[..., EmbeddedRedis]
OPEN_S = 0.1
IMPATIENT_S = 0.1


class Replica:
    """A remote tier with its recovery, wired as the service's is."""

    def __init__(self, rig: RemoteRig, recovery: Recovery, values: list[tuple[str, Entry]]) -> None:
        self.remote: RemoteCache = rig.remote
        self.client: Redis = rig.client
        self.rig = rig
        self.recovery = recovery
        self.values = values
        """What its L1 holds."""

    async def loses_redis(self) -> None:
        """Soon: one that was only slow meanwhile would not be lost."""
        patient_s, self.remote._timeout_s = self.remote._timeout_s, IMPATIENT_S
        async with asyncio.timeout(30):
            while self.rig.breaker.state is BreakerState.CLOSED:
                await self.remote.get("any")
        self.remote._timeout_s = patient_s

    async def has_redis(self) -> None:
        async with asyncio.timeout(60):
            while not self.remote.is_available:  # noqa: ASYNC110 - the state is in another process
                await asyncio.sleep(0.001)

    async def holds(self, values: list[tuple[str, Entry]]) -> None:
        """Until Redis does."""
        async with asyncio.timeout(30):
            while [(key, await self.remote.get(key)) for key, _ in values] != values:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


Open = Callable[..., Replica]


@pytest.fixture
async def open_replica(open_remote: OpenRemote) -> AsyncIterator[Open]:
    async with AsyncExitStack() as closing:

        def open_(url: str, *, prefix: str = "t", max_pending: int = 100) -> Replica:
            def on_change(_old: BreakerState, new: BreakerState) -> None:
                if new is BreakerState.OPEN:
                    recovery.wake()

            rig = open_remote(url, prefix=prefix, failures=1, open_s=OPEN_S, timeout_s=5.0, on_change=on_change)
            values: list[tuple[str, Entry]] = []
            recovery = Recovery(rig.remote, rig.breaker, max_pending=max_pending, fresh_values=lambda: list(values))
            recovery.start()
            closing.push_async_callback(recovery.aclose)
            return Replica(rig, recovery, values)

        yield open_


async def round_trips_s(client: Redis, count: int) -> float:
    async with Ticks() as ticks:
        for _ in range(count):
            await client.ping()
    return ticks.seconds


def entry(version: int = 1, created_at: float = 1_000.0) -> Entry:
    return Entry(b"version %d" % version, version, created_at, 60.0, 0.01)


async def test_what_was_invalidated_while_redis_hung_is_not_read_again_when_it_is_back(
    open_replica: Open, own_redis: OwnRedis
) -> None:
    """A stopped server keeps its values. Readers ask without pause, so that the first moment would show one."""
    server = own_redis()
    replica = open_replica(server.url())
    keys = [str(number) for number in range(50)]
    for key in keys:
        await replica.remote.put(key, entry(1))
    server.suspend()
    await replica.loses_redis()
    for key in keys:
        assert not await replica.recovery.invalidate(key, 2)
    assert replica.recovery.pending == 50
    found: list[Entry] = []

    async def read(key: str) -> None:
        while True:
            got = await replica.remote.get(key)
            if got is not None:
                found.append(got)
            await asyncio.sleep(0)

    readers = [asyncio.create_task(read(key)) for key in (keys[0], keys[-1])]
    server.resume()
    await replica.has_redis()
    assert replica.recovery.pending == 0
    assert await replica.remote.put(keys[-1], entry(1)) is Stored.PAST
    for key in keys:
        assert await replica.client.get(replica.remote.names(key)[2]) == b"2"
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    assert found == []


async def test_a_redis_that_lost_its_memory_is_told_again_what_it_must_not_take(
    open_replica: Open, own_redis: OwnRedis
) -> None:
    server = own_redis()
    replica = open_replica(server.url())
    server.kill()
    await replica.loses_redis()
    replica.recovery.invalidate_later("1", 2)
    server.start()
    await replica.has_redis()
    assert await replica.remote.put("1", entry(1)) is Stored.PAST
    assert await replica.remote.put("1", entry(2)) is Stored.STORED


async def test_requests_never_find_out_for_themselves_whether_redis_is_back(
    open_replica: Open, own_redis: OwnRedis
) -> None:
    server = own_redis()
    replica = open_replica(server.url())
    server.kill()
    await replica.loses_redis()
    await replica.recovery.aclose()
    server.start()
    await asyncio.sleep(2 * OPEN_S)
    assert replica.rig.breaker.retry_after_s == 0
    assert await replica.remote.get("1") is None
    assert await replica.remote.take("1", "token", now=0.0) is None
    assert replica.rig.breaker.state is BreakerState.OPEN


async def test_more_than_could_be_kept_sweeps_all_values_of_our_own_and_nothing_else(
    open_replica: Open, own_redis: OwnRedis
) -> None:
    server = own_redis()
    prefix = "t[ab]*?\\"
    replica = open_replica(server.url(), prefix=prefix, max_pending=2)
    await replica.remote.invalidate("0", 1)  # a floor, which stays
    for number in range(1_200):
        await replica.remote.put(str(number), entry(5))
    others = ["ta:1:{1}", "t:1:{1}", "tb:1:{1}:lease", f"{prefix}:2:{{1}}", f"{prefix}:1:wake", "1"]
    for other in others:
        await replica.client.set(other, "another's")
    server.suspend()
    await replica.loses_redis()
    for number in range(3):
        replica.recovery.invalidate_later(str(number), 6)
    server.resume()
    await replica.has_redis()
    left = set(await replica.client.keys())
    assert left == {name.encode() for name in (*others, replica.remote.names("0")[2])}


async def test_a_sweep_ends_the_leases_so_that_no_load_begun_before_it_is_stored_and_wakes_who_waits(
    open_replica: Open, own_redis: OwnRedis
) -> None:
    server = own_redis()
    replica = open_replica(server.url(), max_pending=0)
    taken = await replica.remote.take("17", "holder", now=0.0)
    assert taken is not None
    assert taken.grant is Grant.WON
    async with replica.client.pubsub() as subscription:
        await subscription.subscribe(replica.remote.channel)
        replica.recovery.invalidate_later("1", 6)
        async with asyncio.timeout(30):
            message = None
            while message is None:
                message = await subscription.get_message(ignore_subscribe_messages=True, timeout=1)
        assert message["data"] == b"17"
    assert await replica.remote.put("17", entry(), "holder") is Stored.FENCED


async def test_everything_changed_is_swept_also_while_redis_is_well(open_replica: Open, own_redis: OwnRedis) -> None:
    replica = open_replica(own_redis().url())
    await replica.remote.put("1", entry())
    replica.recovery.sweep_later()
    async with asyncio.timeout(30):
        while await replica.remote.get("1") is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_server_that_hangs_in_the_middle_of_a_sweep_costs_its_timeout_and_is_swept_later(
    open_replica: Open, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_redis()
    replica = open_replica(server.url())
    for number in range(1_200):
        await replica.remote.put(str(number), entry())
    remote_client: Any = replica.remote._client
    unlink = remote_client.unlink

    def hang_first(*names: bytes) -> object:
        monkeypatch.setattr(remote_client, "unlink", unlink)
        replica.remote._timeout_s = IMPATIENT_S
        server.suspend()
        return unlink(*names)

    monkeypatch.setattr(remote_client, "unlink", hang_first)
    async with Ticks() as ticks:
        assert not await replica.remote.probe([], sweep=True)
    assert ticks.seconds < 2.0
    assert replica.rig.breaker.state is BreakerState.OPEN
    replica.recovery.sweep_later()
    replica.remote._timeout_s = 5.0
    server.resume()
    await replica.has_redis()
    assert await replica.client.dbsize() == 0


async def test_a_redis_that_answers_but_refuses_what_it_is_told_is_not_read_again(
    open_replica: Open, own_redis: OwnRedis
) -> None:
    """As one that came back as a read-only replica: its values are past, and it can't be told so."""
    server = own_redis()
    replica = open_replica(server.url())
    await replica.remote.put("1", entry(1))
    server.suspend()
    await replica.loses_redis()
    replica.recovery.invalidate_later("1", 2)
    server.resume()
    await replica.client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")  # type: ignore[no-untyped-call]
    failed = replica.rig.events.counts["failed invalidate"]
    async with asyncio.timeout(30):
        while replica.rig.events.counts["failed invalidate"] < failed + 3:
            assert await replica.remote.get("1") is None
            await asyncio.sleep(0.002)
    assert await replica.remote.answers()
    await replica.client.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]
    await replica.has_redis()
    assert await replica.remote.get("1") is None
    assert await replica.client.get(replica.remote.names("1")[2]) == b"2"


async def test_values_are_put_back_where_they_are_the_newest(open_replica: Open, own_redis: OwnRedis) -> None:
    server = own_redis()
    replica = open_replica(server.url())
    newer, later = entry(3), entry(2, created_at=1_001.0)
    await replica.remote.put("newer", newer)
    await replica.remote.put("later", later)
    server.suspend()
    await replica.loses_redis()
    replica.values += [("newer", entry(2)), ("later", entry(2)), ("lost", entry(2)), ("past", entry(2))]
    replica.recovery.invalidate_later("past", 3)
    server.resume()
    await replica.holds([("newer", newer), ("later", later), ("lost", entry(2))])
    assert await replica.remote.get("past") is None


async def test_after_the_return_every_replica_finds_what_any_of_them_held_and_nobody_loads(
    open_replica: Open, own_redis: OwnRedis
) -> None:
    """Replicas come back one after the other, each with its own values; the newest of each key is what stays."""
    server = own_redis()
    replicas = [open_replica(server.url()) for _ in range(4)]
    server.kill()
    for number, replica in enumerate(replicas):
        await replica.loses_redis()
        replica.values += [(str(key), entry(1 + (key + number) % 4)) for key in range(100)]
    server.start()
    for replica in replicas:
        await replica.has_redis()
    await replicas[0].holds([(str(key), entry(4)) for key in range(100)])
    for replica in replicas:
        for key in range(100):
            taken = await replica.remote.take(str(key), "token", now=1_030.0)
            assert taken is not None
            assert (taken.grant, taken.entry) == (Grant.HIT, entry(4))


async def test_as_many_as_can_be_pending_are_taken_in_a_few_seconds(open_replica: Open, own_redis: OwnRedis) -> None:
    server = own_redis()
    replica = open_replica(server.url(), max_pending=5_000)
    server.kill()
    await replica.loses_redis()
    for number in range(5_000):
        replica.recovery.invalidate_later(str(number), 2)
    server.start()
    async with Ticks() as ticks:
        await replica.has_redis()
    print(f"{ticks.seconds:.2f} s")
    assert ticks.seconds < 8.0 or ticks.seconds < 5 * await round_trips_s(replica.client, 5_000)
    assert await replica.client.dbsize() == 5_000
