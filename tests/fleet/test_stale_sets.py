"""Loads, writes, invalidations and leases that run out, in every order that comes up: nothing past is ever stored."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from app.cache.entry import Entry
from app.cache.remote import Grant, RemoteCache, Stored, counts_as_failure
from app.concurrency.breaker import CircuitBreaker
from app.lab.simulation.recorded_events import RecordedEvents

INTERLEAVINGS = 1_000
STEPS = 24
REPLICAS = 3
NOW = 1_000.0


@dataclass
class Load:
    """One replica's load: it has the lease, then has read the database, then puts."""

    token: str
    read: int | None = None


@dataclass
class Interleaving:
    """The database, by its version, and what has been told to Redis of it."""

    key: str
    version: int = 1
    told: int = 0
    """The highest version whose invalidation has ended."""
    loads: list[Load] = field(default_factory=list)
    stored: int = 0
    """The highest version that Redis has had."""
    untold: list[int] = field(default_factory=list)
    """Announcements under way to the replicas, each told to Redis when its turn comes, in any order."""
    written: list[int] = field(default_factory=list)
    """Versions whose writers have yet to put them."""
    trace: list[str] = field(default_factory=list)


@pytest.fixture
async def remote(redis_url: str) -> AsyncIterator[RemoteCache]:
    client = Redis.from_url(redis_url)
    breaker = CircuitBreaker(failures=5, open_s=60.0, counts=counts_as_failure)
    yield RemoteCache(client, prefix="stale", breaker=breaker, timeout_s=5.0, events=RecordedEvents())
    await client.aclose()


async def test_no_interleaving_stores_what_an_invalidation_has_made_past(remote: RemoteCache) -> None:
    # The steps of loads, writes and invalidations are atomic, so an interleaving is an order of them. Each order is
    # drawn from a seed of its own, which its failure names.
    counts = dict.fromkeys(Stored, 0)
    stale: list[tuple[str, list[str]]] = []
    for seed in range(INTERLEAVINGS):
        pick = random.Random(seed)
        run = Interleaving(f"{seed}")
        for _ in range(STEPS):
            step = pick.choice([_take, _take, _read, _read, _put, _put, _write, _put_written, _tell, _tell, _expire])
            await step(run, remote, pick, counts)
            await _look(run, remote, stale)
        # Whatever is still under way ends, and then a reader finds the newest value, or none.
        for version in list(run.untold):
            await remote.invalidate(run.key, version)
            run.told = max(run.told, version)
        for load in list(run.loads):
            if load.read is not None:
                await remote.put(run.key, _entry(load.read), load.token)
        await _look(run, remote, stale)
    print({each.value: count for each, count in counts.items()})
    assert stale == []
    assert min(counts[each] for each in (Stored.STORED, Stored.FENCED, Stored.PAST)) > INTERLEAVINGS / 100


async def _look(run: Interleaving, remote: RemoteCache, stale: list[tuple[str, list[str]]]) -> None:
    """What is there is neither below what was invalidated nor below what was there before."""
    entry = await remote.get(run.key)
    if entry is not None:
        if entry.version < max(run.told, run.stored):
            stale.append((run.key, run.trace))
        run.stored = max(run.stored, entry.version)


def _entry(version: int) -> Entry:
    return Entry(b"value", version, NOW, 3_600.0, 0.0)


async def _take(run: Interleaving, remote: RemoteCache, pick: random.Random, counts: dict[Stored, int]) -> None:
    token = f"{run.key}-{len(run.trace)}"
    taken = await remote.take(run.key, token, now=NOW + 1)
    assert taken is not None
    run.trace.append(f"take: {taken.grant.value}")
    if taken.grant is Grant.WON:
        run.loads.append(Load(token))
    elif taken.grant is Grant.HIT:
        assert taken.entry is not None
        assert taken.entry.version >= run.told, run.trace


async def _read(run: Interleaving, remote: RemoteCache, pick: random.Random, counts: dict[Stored, int]) -> None:
    unread = [load for load in run.loads if load.read is None]
    if unread:
        load = pick.choice(unread)
        load.read = run.version
        run.trace.append(f"{load.token} reads {load.read}")


async def _put(run: Interleaving, remote: RemoteCache, pick: random.Random, counts: dict[Stored, int]) -> None:
    ready = [load for load in run.loads if load.read is not None]
    if ready:
        load = pick.choice(ready)
        run.loads.remove(load)
        assert load.read is not None
        stored = await remote.put(run.key, _entry(load.read), load.token)
        counts[stored] += 1
        run.trace.append(f"{load.token} puts {load.read}: {stored.value}")


async def _write(run: Interleaving, remote: RemoteCache, pick: random.Random, counts: dict[Stored, int]) -> None:
    run.version += 1
    run.untold += [run.version] * REPLICAS
    run.trace.append(f"commit of {run.version}")
    if pick.random() < 0.5:
        run.written.append(run.version)


async def _put_written(run: Interleaving, remote: RemoteCache, pick: random.Random, counts: dict[Stored, int]) -> None:
    """Some writers are replicas, which put what they wrote, without a lease, sooner or later."""
    if run.written:
        version = run.written.pop(pick.randrange(len(run.written)))
        stored = await remote.put(run.key, _entry(version))
        counts[stored] += 1
        run.trace.append(f"a writer puts {version}: {stored.value}")


async def _tell(run: Interleaving, remote: RemoteCache, pick: random.Random, counts: dict[Stored, int]) -> None:
    if run.untold:
        version = pick.choice(run.untold)
        run.untold.remove(version)
        assert await remote.invalidate(run.key, version)
        run.told = max(run.told, version)
        run.trace.append(f"invalidation of {version}")


async def _expire(run: Interleaving, remote: RemoteCache, pick: random.Random, counts: dict[Stored, int]) -> None:
    """The lease runs out, so that another becomes the holder while the first one still loads."""
    assert isinstance(remote._client, Redis)
    await remote._client.delete(remote.names(run.key)[1])
    run.trace.append("the lease ends")
