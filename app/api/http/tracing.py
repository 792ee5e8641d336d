"""A span for each HTTP request."""

from __future__ import annotations

from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.util.types import AttributeValue
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry.tracing import failed, incoming, span

UNTRACED = frozenset({"/live", "/ready", "/metrics"})
"""What is asked every few seconds, by machines."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MAX_PATH = 256
"""Characters of a path that its span shows."""


class TracedApp:
    """`app`, each of whose requests is a server span, in its caller's trace if it has one.

    By the semantic conventions for HTTP. It is named for the route, if that is one of `routes`. Those for the paths in
    `untraced` have none.
    """

    def __init__(
        self, app: ASGIApp, tracer: Tracer, routes: frozenset[str], untraced: frozenset[str] = UNTRACED
    ) -> None:
        self._app = app
        self._tracer = tracer
        self._routes = routes
        self._untraced = untraced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._untraced:
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        attributes: dict[str, AttributeValue] = {
            "http.request.method": method,
            "url.scheme": scope.get("scheme", "http"),
            "url.path": path[:MAX_PATH],
            "network.protocol.version": scope["http_version"],
        }
        if path in self._routes:
            attributes["http.route"] = path
        if scope.get("client"):
            attributes["client.address"] = scope["client"][0]
        word = "HTTP" if method == "_OTHER" else method
        name = f"{word} {path}" if path in self._routes else word
        with span(self._tracer, name, SpanKind.SERVER, attributes, incoming(scope["headers"])) as own:
            await self._app(scope, receive, _Noting(send, own))


class _Noting:
    """`send`, which tells the span the status."""

    __slots__ = ("_own", "_send")

    def __init__(self, send: Send, own: Span) -> None:
        self._send = send
        self._own = own

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            status: int = message["status"]
            self._own.set_attribute("http.response.status_code", status)
            if status >= 500:
                failed(self._own, str(status))
        await self._send(message)
