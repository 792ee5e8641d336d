"""The outermost layer of the HTTP application: what is done for every request, whatever becomes of it."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.http import problems
from app.api.http.arrivals import ARRIVED
from app.api.http.hits import PATH, REQUEST_ID_HEADER, HitPath
from app.api.http.reads import METHODS as READ_METHODS
from app.health import Health
from app.telemetry.metrics import Metrics
from app.telemetry.request_id import begin

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNCOUNTED = frozenset({"/metrics"})
"""Scrapes would show up as traffic."""

_log = logging.getLogger(__name__)


class Edge:
    """Counts and times requests, answers bugs with a bare 500, and tells clients to reconnect while draining.

    A GET that `hits` has the response to is answered at once, and other reads of a template are answered by `reads`;
    all the rest by `app`, the framework. A request that is cancelled while draining gets 503, if its answer has not
    begun.

    Each request that is no such hit has an id, which its log lines get; it goes back to a client that sent one.

    `routes` are the paths that may become labels; every other path is counted as `unmatched`, and those in `uncounted`
    go straight to the framework.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: frozenset[str],
        metrics: Metrics,
        health: Health,
        hits: HitPath | None,
        reads: ASGIApp,
        uncounted: frozenset[str] = UNCOUNTED,
    ) -> None:
        self._app = app
        self._hits = hits
        self._reads = reads
        self._routes = routes
        self._uncounted = uncounted
        self._metrics = metrics
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        if state := scope.get("state"):
            began = state.get(ARRIVED, began)
        if scope["type"] == "http" and scope["path"] == PATH and self._hits is not None and not self._health.draining:
            response = self._hits.response(scope)
            if response is not None:
                in_flight = self._metrics.in_flight
                in_flight.value += 1
                try:
                    await send(response[0])
                    await send(response[1])
                finally:
                    in_flight.value -= 1
                    self._hits.answered(began)
                return
        if scope["type"] != "http" or scope["path"] in self._uncounted:
            await self._app(scope, receive, send)
            return
        app = self._reads if scope["path"] == PATH and scope["method"] in READ_METHODS else self._app
        started = False
        status = 500
        sent = [value.decode("latin-1") for name, value in scope["headers"] if name == REQUEST_ID_HEADER]
        returned = REQUEST_ID_HEADER, begin(sent).encode("ascii")

        async def send_noting_status(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                if sent:
                    message["headers"] = [*message["headers"], returned]
                if self._health.draining:
                    # The next request on this connection could meet its end; on a new one it finds another replica.
                    others = [header for header in message["headers"] if header[0] != b"connection"]
                    message["headers"] = [*others, (b"connection", b"close")]
            await send(message)

        self._metrics.in_flight.value += 1
        try:
            await app(scope, receive, send_noting_status)
        except asyncio.CancelledError:
            if not self._health.draining:
                raise
            # The time for draining is over. Nothing comes after this in the request's task that could be cancelled.
            if not started:
                await problems.ending()(scope, receive, send_noting_status)
        except Exception:  # noqa: BLE001 - the last resort: nothing is above it but the server
            _log.exception("request failed")
            if not started:
                await problems.internal()(scope, receive, send_noting_status)
        finally:
            self._metrics.in_flight.value -= 1
            path = scope["path"] if scope["path"] in self._routes else "unmatched"
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            self._metrics.request_ended(path, method, status, time.perf_counter() - began)
