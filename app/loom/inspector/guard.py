"""Who may ask the inspector: this machine's user, through no other site."""

from __future__ import annotations

import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS: Final = frozenset({"/live", "/ready", "/health", "/metrics"})
"""Probes and metrics: asked by machines, under whatever name they know this one by."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Wraps an application. Refuses with 401, 403 or 421, as JSON with `error`.

    Without a token, only names of this machine's loopback are taken as `Host`, so that a name that somebody else owns
    and has pointed here (DNS rebinding) is refused. With one, who knows it may ask under any name; the link
    `/?token=…` gives it, and leaves it as a cookie. In both cases requests that another site's page makes are refused.
    """

    def __init__(self, app: ASGIApp, *, token: str | None = None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = None if scope["path"] in OPEN_PATHS else self._refusal(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._token is None and not is_loopback(host):
            return _refused(421, f"this is not {host or 'a request without Host'}; ask for localhost or 127.0.0.1")
        origin = headers.get("origin")
        if origin not in (None, f"http://{host}", f"https://{host}"):
            return _refused(403, "requests of other sites are not answered")
        site = headers.get("sec-fetch-site", "none")
        is_visit = scope["method"] in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not (is_visit and scope["path"] == "/"):
            return _refused(403, "requests of other sites are not answered")
        return None if self._token is None else self._unknown(scope, headers, self._token)

    def _unknown(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        # By port: browsers send a host's cookies to all its ports.
        server = scope.get("server")
        name = f"loom_{server[1] if server else 0}"
        if scope["path"] == "/" and scope["method"] in SAFE_METHODS:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            if _same(given, token):
                answer = RedirectResponse("/", status_code=303)
                answer.set_cookie(name, token, httponly=True, samesite="strict", path="/")
                return answer
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(credentials.strip(), token):
            return None
        if _same(_cookie(headers, name), token):
            return None
        return _refused(401, "open the link that Loom printed when it started, or send its token as 'Bearer'")


def is_loopback(host: str) -> bool:
    """Whether a `Host` header, or an address to listen on, names this machine's loopback."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _cookie(headers: Headers, name: str) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status_code=status)
