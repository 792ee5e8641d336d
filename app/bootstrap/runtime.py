"""The whole service: which part gets which, and who closes what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp

from app import __version__
from app.api.grpc.server import GrpcServer
from app.api.http.app import create_app
from app.api.http.arrivals import Arrivals
from app.bootstrap.changes import change_feed, watches_of
from app.bootstrap.grpc import grpc_server, grpc_tls
from app.bootstrap.live import live_page, live_routes
from app.bootstrap.read_path import read_path
from app.cache.loader import Loader, Reading
from app.domain.errors import StorageUnavailableError
from app.health import Health
from app.live.live import Live
from app.live.recorder import Recorder
from app.live.routes import STREAMS
from app.service import TemplateService
from app.settings import Settings
from app.storage.imports import ImportLimits
from app.storage.migrate import migrate
from app.storage.postgres import ANSWER_GRACE_S, Database
from app.storage.templates import TemplateRepository
from app.telemetry.metrics import Metrics
from app.telemetry.traced_metrics import TracedMetrics
from app.tracing import exporting
from app.tracing_settings import TracingSettings

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
    http_arrivals: Arrivals
    grpc: GrpcServer
    live: Live


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
    tls = grpc_tls(settings, metrics)
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
        await repository.warm_up(settings.database_pool_min)
        metrics.watch_imports(lambda: repository.imports_in_flight)
        live = live_page(settings, metrics, stack, CLOSE_TIMEOUT_S)
        path = await read_path(settings, repository, metrics, traced, live.recorder, stack)
        loader = path.loader
        stack.push_async_callback(loader.aclose, CLOSE_TIMEOUT_S)
        feed = await change_feed(settings, path, metrics, stack)
        watches = watches_of(settings, loader, feed, metrics, stack)
        service = TemplateService(repository, _ByTemplate(loader, live.recorder), watches)
        health = Health({"cache": path.remote.answers, "database": partial(_answers, database)})
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
            pages=live_routes(settings, live, metrics, service, loader, repository),
            streams=STREAMS,
        )
        grpc = grpc_server(settings, service, fresh=loader.fresh, tls=tls, metrics=metrics, tracer=traced.tracer)
        arrivals = Arrivals(loader.holds, in_flight=metrics.in_flight)
        yield Runtime(settings, metrics, health, service, http_app, arrivals, grpc, live)


def _import_limits(settings: Settings) -> ImportLimits:
    return ImportLimits(
        concurrent=settings.imports_at_once,
        idle_s=settings.import_idle_timeout_s,
        answer_s=settings.database_statement_timeout_s + ANSWER_GRACE_S,
        total_s=settings.import_timeout_s,
    )


class _ByTemplate:
    """The loader, which knows keys, as the cache that the use cases ask for, which knows templates."""

    def __init__(self, loader: Loader, recorder: Recorder) -> None:
        self._loader = loader
        self._recorder = recorder

    async def read(self, template_id: int) -> Reading:
        if self._recorder.is_on:
            return await self._recorder.read(str(template_id), self._loader.read)
        return await self._loader.read(str(template_id))

    async def written(self, template_id: int, version: int, payload: bytes | None) -> None:
        await self._loader.written(str(template_id), version, payload)

    async def outdated(self, template_id: int, version: int) -> None:
        await self._loader.outdated(str(template_id), version)


async def _answers(database: Database) -> bool:
    try:
        await database.ping()
    except StorageUnavailableError:
        return False
    return True
