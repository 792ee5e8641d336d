"""/live, /ready, /health and /metrics, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.concurrency.breaker import BreakerOpenError, BreakerState
from app.concurrency.clock import Clock, monotonic
from app.loom.metrics import LoomMetrics
from app.loom.proxy.link import GuardedUpstream
from app.loom.proxy.upstream import DialError

FRESH_S = 1.0
"""How long what was found out of the backend is taken for true."""


class Health:
    """Whether the backend can be reached, found out by dialling it when asked, once for all who ask together."""

    def __init__(self, upstream: GuardedUpstream, *, clock: Clock = monotonic) -> None:
        self.is_stopping = False
        self._upstream = upstream
        self._clock = clock
        self._started_at = clock()
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._failure: str | None = None

    @property
    def breaker(self) -> str:
        """The circuit breaker's state, in words."""
        return self._upstream.breaker.state.name.lower().replace("_", "-")

    @property
    def uptime_s(self) -> float:
        return self._clock() - self._started_at

    async def failure(self) -> str | None:
        """Why the backend can't be reached; `None` where it can."""
        async with self._lock:
            breaker = self._upstream.breaker
            if breaker.retry_after_s > 0:
                left_s = round(breaker.retry_after_s, 1)
                return f"the circuit breaker is {self.breaker}: it lets the next one by in {left_s:g} s"
            if self._clock() - self._asked_at >= FRESH_S or breaker.state is not BreakerState.CLOSED:
                try:
                    await self._dial()
                except (DialError, BreakerOpenError) as error:
                    self._failure = str(error)
                else:
                    self._failure = None
                self._asked_at = self._clock()
            return self._failure

    async def _dial(self) -> None:
        """Asking opens no breaker, but may close it: no client may come while it is open, as nobody is sent here."""
        if self._upstream.breaker.state is BreakerState.CLOSED:
            found = await self._upstream.upstream.dial(_Hangup)
        else:
            found, link = await self._upstream.dial(_Hangup)
            link.ended(lost=False)
        found.hang_up()


class _Hangup(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def hang_up(self) -> None:
        self._transport.abort()  # nothing was said; closing it, one would wait for the peer to end TLS, too


def probes(health: Health, metrics: LoomMetrics) -> list[Route]:
    """The routes."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "alive", "uptime": round(health.uptime_s, 3)})

    async def ready(_: Request) -> Response:
        if health.is_stopping:
            return JSONResponse({"status": "stopping"}, status_code=503)
        failure = await health.failure()
        if failure is not None:
            return JSONResponse({"status": "not ready", "error": failure}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def report(_: Request) -> Response:
        failure = await health.failure()
        document: dict[str, object] = {
            "status": "degraded" if failure else "healthy",
            "backend": "unreachable" if failure else "connected",
            "circuit_breaker": health.breaker,
            "uptime": round(health.uptime_s, 3),
        }
        if failure:
            document["error"] = failure
        return JSONResponse(document, status_code=503 if failure else 200)

    async def exposition(_: Request) -> Response:
        body, content_type = metrics.exposition()
        return Response(body, media_type=content_type)

    handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/live": live,
        "/ready": ready,
        "/health": report,
        "/metrics": exposition,
    }
    return [Route(path, handler) for path, handler in handlers.items()]
