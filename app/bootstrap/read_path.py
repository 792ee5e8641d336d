"""The read path that the mode asks for, from the cache's tiers to the load."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from redis.asyncio import Redis

from app.cache.cluster import ClusterClient
from app.cache.coherence import Coherence
from app.cache.connection import connect
from app.cache.entry import Entry
from app.cache.floors import Floors
from app.cache.lease import LeasedFill
from app.cache.least import LeastLoads
from app.cache.loader import Loader
from app.cache.memory import MemoryCache
from app.cache.origin import Load, LoadDeadlineError, Loaded, Origin
from app.cache.protection import Protection, Singleflight
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache, counts_as_failure
from app.cache.wakeups import Wakeups
from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.concurrency.clock import wall
from app.concurrency.tasks import TaskSet
from app.domain.errors import OverloadedError, StorageUnavailableError
from app.live.recorded import RecordedFlights, RecordedRemote, recorded_load
from app.live.recorder import Recorder
from app.read_path_settings import (
    CACHE_FAILURES,
    MAX_BACKGROUND,
    MAX_FLOORS,
    MAX_PENDING,
    bulkhead,
    floor_life_s,
    kept_past_expiry_s,
    policy,
    protection,
    remote_floor_s,
)
from app.service import to_payload
from app.settings import Mode, Settings
from app.storage.templates import TemplateRepository
from app.telemetry.metrics import Metrics
from app.tracing import Untraced

LOAD_FAILURES = (StorageUnavailableError, OverloadedError, *CACHE_FAILURES)
"""Why a load may fail through no fault of the request; a stale value may then be served instead."""


@dataclass(frozen=True)
class ReadPath:
    """The loader, and those of its parts that others tell or ask something."""

    loader: Loader
    remote: RemoteCache
    recovery: Recovery
    coherence: Coherence


async def read_path(
    settings: Settings,
    repository: TemplateRepository,
    metrics: Metrics,
    traced: Untraced,
    recorder: Recorder,
    stack: AsyncExitStack,
) -> ReadPath:
    """Connected to Redis where that is there. The loader is the caller's to close, before the stack is."""
    full = settings.mode is Mode.FULL
    background = TaskSet(limit=MAX_BACKGROUND)
    memory = None
    if full and settings.l1_enabled:
        memory = MemoryCache(max_entries=settings.l1_max_entries, max_bytes=settings.l1_max_bytes)
    coherence = Coherence(expected=full and settings.coherence_enabled, grace_s=settings.coherence_grace_s)
    client = _redis(settings, traced)
    remote, recovery = _remote_tier(settings, client, metrics, memory, coherence, stack)
    await remote.answers()  # connected before the bookmark or a read is asked for, which have no time for that
    origin = _origin(settings, recorded_load(traced.load(partial(_load, repository)), recorder), metrics)
    loader = Loader(
        origin=origin,
        remote=remote,
        protection=RecordedFlights(_protection(settings, traced)),
        events=metrics,
        least=LeastLoads(settings.cache_ttl_s),
        background=background,
        floors=Floors(max_keys=MAX_FLOORS, life_s=floor_life_s(settings), skew_s=settings.clock_skew_s),
        coherence=coherence,
        recovery=recovery,
        policy=policy(settings),
        failures=LOAD_FAILURES,
        memory=memory,
        leased=await _leased(settings, client, remote, origin, background, metrics, stack),
    )
    return ReadPath(loader, remote, recovery, coherence)


def _remote_tier(
    settings: Settings,
    client: Redis | ClusterClient,
    metrics: Metrics,
    memory: MemoryCache | None,
    coherence: Coherence,
    stack: AsyncExitStack,
) -> tuple[RemoteCache, Recovery]:
    report = metrics.breaker("redis")

    def on_change(_old: BreakerState, new: BreakerState) -> None:
        report(new.value)
        if new is BreakerState.OPEN:
            recovery.wake()

    breaker = CircuitBreaker(
        failures=settings.redis_breaker_failures,
        open_s=settings.redis_breaker_open_s,
        counts=counts_as_failure,
        on_change=on_change,
    )
    remote = RecordedRemote(
        client,
        prefix=settings.cache_key_prefix,
        breaker=breaker,
        timeout_s=settings.redis_timeout_s,
        events=metrics,
        concurrent=settings.redis_pool_max,
        lease_s=settings.lease_life_s,
        floor_s=remote_floor_s(settings),
        kept_past_expiry_s=kept_past_expiry_s(settings),
    )
    stack.push_async_callback(remote.aclose)

    def fresh_values() -> list[tuple[str, Entry]]:
        return [] if memory is None else coherence.trusted(memory.entries(), wall())

    recovery = Recovery(remote, breaker, max_pending=MAX_PENDING, fresh_values=fresh_values)
    recovery.start()
    stack.push_async_callback(recovery.aclose)
    metrics.watch_pending(lambda: recovery.pending)
    if memory is not None:
        metrics.watch_l1(memory.__len__, lambda: memory.size_bytes)
    return remote, recovery


def _redis(settings: Settings, traced: Untraced) -> Redis | ClusterClient:
    return connect(
        settings.redis_url,
        connections=settings.redis_pool_max,
        timeout_s=settings.redis_timeout_s,
        failures=settings.redis_breaker_failures,
        open_s=settings.redis_breaker_open_s,
        client=traced.redis,
    )


def _origin(settings: Settings, load: Load, metrics: Metrics) -> Origin:
    full = settings.mode is Mode.FULL
    breaker = None
    slots = bulkhead(settings)
    if slots is not None:
        metrics.watch_bulkhead(lambda: slots.in_use, lambda: slots.waiting)
    report = metrics.breaker("postgres")
    if full and settings.database_breaker_failures:
        breaker = CircuitBreaker(
            failures=settings.database_breaker_failures,
            open_s=settings.database_breaker_open_s,
            counts=lambda error: isinstance(error, StorageUnavailableError | LoadDeadlineError),
            on_change=lambda _old, new: report(new.value),
        )
    return Origin(
        load,
        ttl_s=settings.cache_ttl_s,
        negative_ttl_s=settings.negative_ttl_s if full else 0.0,
        jitter=settings.cache_ttl_jitter,
        deadline_s=settings.load_deadline_s,
        events=metrics,
        bulkhead=slots,
        breaker=breaker,
    )


async def _leased(
    settings: Settings,
    client: Redis | ClusterClient,
    remote: RemoteCache,
    origin: Origin,
    background: TaskSet,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> LeasedFill | None:
    if settings.mode not in (Mode.FLEET, Mode.FULL) or not settings.lease_enabled:
        return None
    wakeups = Wakeups(client, remote.channel, ping_s=settings.redis_timeout_s, on_state=metrics.wakeups)
    if isinstance(client, ClusterClient):
        client.on_change = wakeups.wake_all
    metrics.wakeups(False)
    wakeups.start()
    stack.push_async_callback(wakeups.aclose)
    return LeasedFill(
        remote=remote,
        wakeups=wakeups,
        load=origin.load,
        background=background,
        events=metrics,
        failures=LOAD_FAILURES,
    )


def _protection(settings: Settings, traced: Untraced) -> Protection:
    made = protection(settings)
    return traced.flights(made) if isinstance(made, Singleflight) else made


async def _load(repository: TemplateRepository, key: str) -> Loaded:
    template, version = await repository.load(int(key))
    return Loaded(None if template is None else to_payload(template), version)
