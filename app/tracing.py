"""Which parts of the service make spans. Where nothing is exported they are the plain parts, and cost nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanContext, Tracer
from redis.asyncio import Redis

from app import __version__
from app.cache import scripts
from app.cache.origin import Load, Loaded
from app.cache.protection import Fill, Look, Protection, T
from app.concurrency.singleflight import Outcome
from app.storage.postgres import Session
from app.storage.spans import traced_session
from app.telemetry.metrics import Metrics
from app.telemetry.redis_spans import traced_redis
from app.telemetry.tracing import is_traced, span
from app.tracing_settings import TracingSettings

SCRIPTS = {
    "take": scripts.TAKE,
    "put": scripts.PUT,
    "release": scripts.RELEASE,
    "revoke": scripts.REVOKE,
    "invalidate": scripts.INVALIDATE,
    "discard": scripts.DISCARD,
    "note": scripts.NOTE,
}
"""By the name that spans show."""


class Untraced:
    """The parts as they are."""

    tracer: Tracer | None = None
    session: type[Session] = Session
    redis: type[Redis] = Redis

    def flights(self, protection: Protection) -> Protection:
        return protection

    def load(self, load: Load) -> Load:
        return load


class Traced(Untraced):
    """The parts, with spans made by `tracer`."""

    def __init__(self, tracer: Tracer, database_url: str) -> None:
        self.tracer: Tracer = tracer
        self.session = traced_session(tracer, database_url)
        self.redis = traced_redis(tracer, SCRIPTS)

    def flights(self, protection: Protection) -> Protection:
        return TracedFlights(protection, self.tracer)

    def load(self, load: Load) -> Load:
        async def traced(key: str) -> Loaded:
            if not is_traced():
                return await load(key)
            with span(self.tracer, "load", attributes={"cache.key": key}):
                return await load(key)

        return traced


@asynccontextmanager
async def exporting(
    settings: TracingSettings | None, database_url: str, metrics: Metrics, close_timeout_s: float
) -> AsyncIterator[Untraced]:
    """The parts, with spans that are exported where the settings say where to; at the end what waits is sent.

    Raises `TracingError` where they can't be.
    """
    if settings is None or settings.endpoint is None:
        yield Untraced()
        return
    from app.telemetry.export import Export  # it brings the SDK, which costs a process without traces time and memory

    export = Export(
        endpoint=settings.endpoint,
        protocol=settings.protocol,
        sampler=settings.traces_sampler,
        ratio=settings.traces_sampler_arg,
        service_name=settings.service_name,
        version=__version__,
        count=metrics.spans,
    )
    try:
        yield Traced(export.tracer, database_url)
    finally:
        await export.aclose(close_timeout_s)


class TracedFlights:
    """Flights with a span each, in the trace of the caller who started it, as its context is the flight's.

    Who shares a flight has no part in that trace: the span that waits gets a link to the flight's, if it ended well or
    not.
    """

    def __init__(self, flights: Protection, tracer: Tracer) -> None:
        self._flights = flights
        self._tracer = tracer

    async def read(self, key: str, look: Look[T], fill: Fill[T]) -> Outcome[T]:
        async def flight() -> tuple[T, SpanContext | None]:
            if not is_traced():
                return await _flown(look, fill), None
            with span(self._tracer, "flight", attributes={"cache.key": key}) as own:
                context = own.get_span_context()
                try:
                    return await _flown(look, fill), context
                except Exception as error:
                    # Each waiter gets a copy of it, attributes included: no other word comes from a flight that failed.
                    error.flight_span = context  # type: ignore[attr-defined]
                    raise

        try:
            (value, brought_by), shared = await self._flights.read(key, _nothing, flight)
        except Exception as error:
            _link(getattr(error, "flight_span", None))
            raise
        if shared:
            _link(brought_by)
        return Outcome(value, shared)

    def forget(self, key: str) -> None:
        self._flights.forget(key)

    def forget_all(self) -> None:
        self._flights.forget_all()

    async def aclose(self, timeout_s: float) -> None:
        await self._flights.aclose(timeout_s)


async def _nothing() -> None:
    """The look is part of the flight that has the span."""


async def _flown(look: Look[T], fill: Fill[T]) -> T:
    found = await look()
    return await fill() if found is None else found


def _link(flight: SpanContext | None) -> None:
    """From the running span, unless the flight is of its own trace."""
    running = trace.get_current_span()
    if flight is not None and running.is_recording() and flight.trace_id != running.get_span_context().trace_id:
        running.add_link(flight)
