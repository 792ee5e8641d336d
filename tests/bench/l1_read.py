"""What a read costs that this process' own memory answers, beside a dictionary whose values have a life."""

from __future__ import annotations

import time
from collections.abc import Mapping

import uvloop
from redis.asyncio import Redis

from app.cache.coherence import Coherence
from app.cache.entry import Entry
from app.cache.floors import Floors
from app.cache.least import LeastLoads
from app.cache.loader import Loader, Policy
from app.cache.memory import MemoryCache
from app.cache.origin import Loaded, Origin
from app.cache.protection import Singleflight
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache
from app.concurrency.breaker import CircuitBreaker
from app.concurrency.clock import wall
from app.concurrency.tasks import TaskSet
from app.telemetry.metrics import Metrics
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject

KEYS = 1_000
PAYLOAD = b"x" * 200
TTL_S = 3_600.0


def _loader(metrics: Metrics) -> tuple[Loader, MemoryCache]:
    """As `app.bootstrap` makes it in mode `full`, over an origin and a Redis that are never asked."""

    async def load(_key: str) -> Loaded:
        raise BenchError("a read went past memory")

    breaker = CircuitBreaker()
    memory = MemoryCache(max_entries=10_000, max_bytes=64_000_000)
    remote = RemoteCache(Redis(), prefix="bench", breaker=breaker, timeout_s=0.1, events=metrics)
    return Loader(
        origin=Origin(load, ttl_s=TTL_S, negative_ttl_s=2.0, jitter=0.1, deadline_s=5.0, events=metrics),
        remote=remote,
        protection=Singleflight(max_waiters=10_000, wait_timeout_s=10.0),
        events=metrics,
        least=LeastLoads(TTL_S),
        background=TaskSet(limit=1_000),
        floors=Floors(max_keys=100_000, life_s=400.0, skew_s=1.0),
        coherence=Coherence(expected=False, grace_s=1.0),
        recovery=Recovery(remote, breaker, max_pending=10_000, fresh_values=list),
        policy=Policy(grace_s=10.0, stale_if_error_s=300.0, early_beta=1.0, soft_deadline_s=0.5),
        failures=(),
        memory=memory,
    ), memory


async def _l1_read(effort: Effort) -> Mapping[str, Run]:
    metrics = Metrics(mode="full", version="bench", ttl_s=TTL_S)
    loader, memory = _loader(metrics)
    keys = [str(number) for number in range(KEYS)]
    rounds = max(1, effort.calls * 40 // KEYS)
    for key in keys:
        memory.put(key, Entry(PAYLOAD, 1, wall(), TTL_S, load_cost_s=0.001))
    plain = {key: (PAYLOAD, wall() + TTL_S) for key in keys}

    async def reads() -> None:
        read = loader.read
        for _ in range(rounds):
            for key in keys:
                await read(key)

    async def lookups() -> None:
        for _ in range(rounds):
            for key in keys:
                value, ends = plain[key]
                if wall() >= ends:
                    raise BenchError(f"{value!r} has expired")

    await reads()
    await lookups()
    begun = time.perf_counter()
    await reads()
    between = time.perf_counter()
    await lookups()
    ended = time.perf_counter()
    calls = rounds * KEYS
    return {"l1_read_ns": Run((between - begun) / calls * 1e9, (ended - between) / calls * 1e9)}


L1_READ = Subject(
    [Figure("l1_read_ns", "ns", baseline="a dictionary lookup, and whether the value has expired", at_most=2_000)],
    lambda effort: uvloop.run(_l1_read(effort)),
)
"""`Loader.read` of a key in memory, in mode `full`, all metrics on, over 1,000 keys in turn."""
