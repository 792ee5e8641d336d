"""The template service's object wiring: which part gets which, and who closes what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from redis.asyncio import Redis
from starlette.types import ASGIApp

from app import __version__
from app.api.grpc.interceptors.access_log import AccessLog
from app.api.grpc.interceptors.stack import CallPolicy, interceptors
from app.api.grpc.options import ServerOptions
from app.api.grpc.server import GrpcServer
from app.api.grpc.tls import ServerTls, TlsFiles
from app.api.http.app import create_app
from app.cache.bookmark import Bookmark, bookmarked
from app.cache.cluster import ClusterClient
from app.cache.coherence import Coherence
from app.cache.connection import connect
from app.cache.entry import Entry
from app.cache.floors import Floors
from app.cache.lease import LeasedFill
from app.cache.least import LeastLoads
from app.cache.loader import Loader, Policy, Reading
from app.cache.memory import MemoryCache
from app.cache.origin import Load, LoadDeadlineError, Loaded, Origin
from app.cache.protection import Mutex, Protection, Singleflight, Unprotected
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache, counts_as_failure
from app.cache.wakeups import Wakeups
from app.concurrency.breaker import BreakerOpenError, BreakerState, CircuitBreaker
from app.concurrency.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError
from app.concurrency.clock import wall
from app.concurrency.singleflight import TooManyWaitersError, WaitTimeoutError
from app.concurrency.tasks import TaskSet
from app.domain.errors import OverloadedError, StorageUnavailableError
from app.health import Health
from app.service import TemplateService, in_domain_terms, to_payload
from app.settings import Mode, Settings, TracingSettings
from app.storage.changes import Change, ChangeFeed, Position
from app.storage.imports import ImportLimits
from app.storage.migrate import migrate
from app.storage.postgres import ANSWER_GRACE_S, Database
from app.storage.templates import TemplateRepository
from app.telemetry.metrics import Metrics
from app.telemetry.traced_metrics import TracedMetrics
from app.tracing import Untraced, exporting
from app.watching.watches import Watches

CLOSE_TIMEOUT_S = 2.0
"""How long each part may take to close. Nobody waits for an answer any more, so that is what unwinding takes."""


@dataclass(frozen=True)
class Runtime:
    """The running service, not yet listening for HTTP or gRPC."""

    settings: Settings
    metrics: Metrics
    health: Health
    service: TemplateService
    http_app: ASGIApp
    grpc: GrpcServer


LOAD_FAILURES = (
    StorageUnavailableError,
    OverloadedError,
    LoadDeadlineError,
    BreakerOpenError,
    BulkheadFullError,
    BulkheadTimeoutError,
    TooManyWaitersError,
    WaitTimeoutError,
)
"""Why a load may fail through no fault of the request; a stale value may then be served instead."""
MAX_FLOORS, MAX_PENDING, MAX_BACKGROUND = 100_000, 10_000, 10_000


@asynccontextmanager
async def running(settings: Settings, tracing: TracingSettings | None = None) -> AsyncIterator[Runtime]:
    """The service, wired and connected; what it opened is closed at the end, in reverse order: stop serving before.

    Traces are made where `tracing` says where to. Raises `TracingError` where they can't be made so, `TlsError` where
    gRPC is to have TLS and a file can't be used, `StorageUnavailableError` where the database can't be reached within
    its start timeout, and what `app.storage` raises where it refuses us or its migrations fail. Redis may be away.
    """
    makes = Metrics if tracing is None or tracing.endpoint is None else TracedMetrics
    metrics = makes(mode=settings.mode.value, version=__version__, ttl_s=settings.cache_ttl_s)
    loop = asyncio.get_running_loop()
    metrics.watch_tasks(lambda: len(asyncio.all_tasks(loop)))
    tls = _grpc_tls(settings, metrics)
    async with AsyncExitStack() as stack:
        traced = await stack.enter_async_context(exporting(tracing, settings.database_url, metrics, CLOSE_TIMEOUT_S))
        database = await Database.connect(
            settings.database_url,
            pool_min=settings.database_pool_min,
            pool_max=settings.database_pool_max,
            connect_timeout_s=settings.database_connect_timeout_s,
            acquire_timeout_s=settings.database_acquire_timeout_s,
            statement_timeout_s=settings.database_statement_timeout_s,
            start_timeout_s=settings.database_start_timeout_s,
            application_name=f"template-{settings.mode.value}",
            session=traced.session,
        )
        stack.push_async_callback(database.close, CLOSE_TIMEOUT_S)
        if settings.database_migrate:
            await migrate(settings.database_url, connect_timeout_s=settings.database_connect_timeout_s)
        repository = TemplateRepository(
            database,
            settings.load_delay_ms,
            metrics.loaded,
            import_limits=_import_limits(settings),
            on_request=metrics.write_request,
            on_import=metrics.import_ended,
        )
        metrics.watch_imports(lambda: repository.imports_in_flight)
        loader, remote, feed = await _loader(settings, repository, metrics, traced, stack)
        watches = await _watches(settings, loader, feed, metrics, stack)
        service = TemplateService(repository, _ByTemplate(loader), watches)
        health = Health({"cache": remote.answers, "database": partial(_answers, database)})
        http_app = create_app(
            service,
            health=health,
            metrics=metrics,
            version=__version__,
            max_body_bytes=settings.http_max_body_bytes,
            max_age_s=settings.http_max_age_s,
            receive_timeout_s=settings.http_receive_timeout_s,
            fresh=loader.fresh,
            tracer=traced.tracer,
        )
        grpc = GrpcServer(
            service,
            settings.grpc_host,
            settings.grpc_port,
            interceptors=interceptors(metrics.calls, _grpc_policy(settings), traced.tracer),
            fresh=loader.fresh,
            options=_grpc_options(settings),
            tls=tls,
        )
        yield Runtime(settings, metrics, health, service, http_app, grpc)


def _grpc_policy(settings: Settings) -> CallPolicy:
    return CallPolicy(
        access_log=AccessLog(settings.grpc_access_log),
        tokens=settings.grpc_tokens_by_name,
        open_health=settings.grpc_open_health,
        open_reflection=settings.grpc_open_reflection,
        rate_per_s=settings.grpc_rate_limit_per_s,
        rate_burst=settings.grpc_rate_burst,
    )


def _grpc_options(settings: Settings) -> ServerOptions:
    return ServerOptions(
        reflection=settings.grpc_reflection,
        max_receive_bytes=settings.grpc_max_receive_bytes,
        max_send_bytes=settings.grpc_max_send_bytes,
        max_metadata_bytes=settings.grpc_max_metadata_bytes,
        max_streams=settings.grpc_max_streams,
        compression_min_bytes=settings.grpc_compression_min_bytes,
        keepalive_time_s=settings.grpc_keepalive_time_s,
        keepalive_timeout_s=settings.grpc_keepalive_timeout_s,
        min_ping_interval_s=settings.grpc_min_ping_interval_s,
        max_connection_age_s=settings.grpc_max_connection_age_s,
        max_connection_age_grace_s=settings.grpc_max_connection_age_grace_s,
    )


def _grpc_tls(settings: Settings, metrics: Metrics) -> ServerTls | None:
    if not settings.grpc_tls_cert_file:
        return None
    client_ca = settings.grpc_tls_client_ca_file
    files = TlsFiles(
        Path(settings.grpc_tls_cert_file), Path(settings.grpc_tls_key_file), Path(client_ca) if client_ca else None
    )
    return ServerTls(files, metrics.certificate_reloaded)


def _import_limits(settings: Settings) -> ImportLimits:
    return ImportLimits(
        concurrent=settings.imports_at_once,
        idle_s=settings.import_idle_timeout_s,
        answer_s=settings.database_statement_timeout_s + ANSWER_GRACE_S,
        total_s=settings.import_timeout_s,
    )


async def _loader(
    settings: Settings, repository: TemplateRepository, metrics: Metrics, traced: Untraced, stack: AsyncExitStack
) -> tuple[Loader, RemoteCache, ChangeFeed]:
    """The read path that the mode asks for, its remote tier, and what tells of changes past it."""
    full = settings.mode is Mode.FULL
    background = TaskSet(limit=MAX_BACKGROUND)
    memory = None
    if full and settings.l1_enabled:
        memory = MemoryCache(max_entries=settings.l1_max_entries, max_bytes=settings.l1_max_bytes)
    coherence = Coherence(expected=full and settings.coherence_enabled, grace_s=settings.coherence_grace_s)
    client = _redis(settings, traced)
    remote, recovery = _remote_tier(settings, client, metrics, memory, coherence, stack)
    await remote.answers()  # connected before the bookmark or a read is asked for, which have no time for that
    floor_life_s = (
        settings.cache_ttl_s + max(settings.grace_s, settings.stale_if_error_s) + 2 * settings.load_deadline_s
    )
    origin = _origin(settings, traced.load(partial(_load, repository)), metrics)
    loader = Loader(
        origin=origin,
        remote=remote,
        protection=_protection(settings, traced),
        events=metrics,
        least=LeastLoads(settings.cache_ttl_s),
        background=background,
        floors=Floors(max_keys=MAX_FLOORS, life_s=floor_life_s, skew_s=settings.clock_skew_s),
        coherence=coherence,
        recovery=recovery,
        policy=_policy(settings),
        failures=LOAD_FAILURES,
        memory=memory,
        leased=await _leased(settings, client, remote, origin, background, metrics, stack),
    )
    stack.push_async_callback(loader.aclose, CLOSE_TIMEOUT_S)
    feed = await _feed(settings, loader, remote, coherence, recovery, metrics, stack)
    return loader, remote, feed


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
    remote = RemoteCache(
        client,
        prefix=settings.cache_key_prefix,
        breaker=breaker,
        timeout_s=settings.redis_timeout_s,
        events=metrics,
        concurrent=settings.redis_pool_max,
        lease_s=settings.lease_life_s,
        floor_s=settings.cache_ttl_s + 2 * settings.load_deadline_s,
        kept_past_expiry_s=max(settings.grace_s, settings.stale_if_error_s) if settings.mode is Mode.FULL else 0.0,
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
    bulkhead = breaker = None
    if full and settings.bulkhead_concurrent:
        bulkhead = Bulkhead(
            concurrent=settings.bulkhead_concurrent,
            queued=settings.bulkhead_queued,
            wait_timeout_s=settings.bulkhead_timeout_s,
        )
        metrics.watch_bulkhead(lambda: bulkhead.in_use, lambda: bulkhead.waiting)
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
        bulkhead=bulkhead,
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
    max_waiters = settings.singleflight_max_waiters or None
    wait_timeout_s = settings.singleflight_wait_timeout_s
    match settings.mode:
        case Mode.NONE:
            return Unprotected()
        case Mode.MUTEX:
            return Mutex(max_waiters=max_waiters, wait_timeout_s=wait_timeout_s)
        case Mode.SINGLEFLIGHT | Mode.FLEET | Mode.FULL:
            return traced.flights(Singleflight(max_waiters=max_waiters, wait_timeout_s=wait_timeout_s))


def _policy(settings: Settings) -> Policy:
    if settings.mode is not Mode.FULL:
        return Policy()
    return Policy(
        grace_s=settings.grace_s,
        stale_if_error_s=settings.stale_if_error_s,
        early_beta=settings.early_refresh_beta,
        soft_deadline_s=settings.soft_deadline_s,
    )


async def _feed(
    settings: Settings,
    loader: Loader,
    remote: RemoteCache,
    coherence: Coherence,
    recovery: Recovery,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> ChangeFeed:
    """Begun. Where the cache is not to be coherent, only watchers are told of changes."""
    kept = await bookmarked(remote) if coherence.is_expected else None
    feed = ChangeFeed(
        settings.database_url,
        connect_timeout_s=settings.database_connect_timeout_s,
        resume_from=None if kept is None else Position.parse(kept),
    )
    stack.push_async_callback(feed.aclose)
    if not coherence.is_expected:
        await feed.start()
        return feed
    feed.add(_Announcements(loader, coherence, metrics))
    bookmark = Bookmark(remote, lambda: str(feed.position) if feed.is_up and not recovery.pending else None)
    stack.push_async_callback(bookmark.aclose)
    await feed.start()
    bookmark.start()
    return feed


async def _watches(
    settings: Settings, loader: Loader, feed: ChangeFeed, metrics: Metrics, stack: AsyncExitStack
) -> Watches:
    """Fed by the same announcements, in every mode, and told of each after the cache is."""
    watches = Watches(
        lambda template_id: in_domain_terms(loader.current(str(template_id))),
        max_watches=settings.watch_max_streams,
        max_ids=settings.watch_max_ids,
        events=metrics,
    )
    metrics.watch_watches(watches.__len__, lambda: watches.ids)
    stack.push_async_callback(watches.aclose)
    feed.add(watches)
    return watches


class _Announcements:
    """What the database announces, told to the cache. Implements `app.storage.changes.ChangeListener`."""

    def __init__(self, loader: Loader, coherence: Coherence, metrics: Metrics) -> None:
        self._loader = loader
        self._coherence = coherence
        self._metrics = metrics

    def changed(self, changes: Sequence[Change]) -> None:
        self._loader.changed([(str(change.id), change.version) for change in changes])
        made_at = changes[0].made_at if changes else None  # one statement's, all of them
        if made_at is not None:
            self._metrics.announced(wall() - made_at)

    def feed_lost(self) -> None:
        self._coherence.lost()
        self._metrics.coherent(False)

    def feed_caught_up(self) -> None:
        self._coherence.regained()
        self._metrics.coherent(True)

    def everything_changed(self) -> None:
        self._loader.everything_changed()

    def flushed(self) -> None:
        self._loader.flush()
        self._metrics.flushed()


class _ByTemplate:
    """The loader, which knows keys, as the cache that the use cases ask for, which knows templates."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    async def read(self, template_id: int) -> Reading:
        return await self._loader.read(str(template_id))

    async def written(self, template_id: int, version: int, payload: bytes | None) -> None:
        await self._loader.written(str(template_id), version, payload)

    async def outdated(self, template_id: int, version: int) -> None:
        await self._loader.outdated(str(template_id), version)


async def _load(repository: TemplateRepository, key: str) -> Loaded:
    template, version = await repository.load(int(key))
    return Loaded(None if template is None else to_payload(template), version)


async def _answers(database: Database) -> bool:
    try:
        await database.ping()
    except StorageUnavailableError:
        return False
    return True
