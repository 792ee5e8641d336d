"""Who may have something done: this machine's user, on this page and through no other site."""

from __future__ import annotations

import ipaddress
import secrets
from urllib.parse import urlsplit

from fastapi import Request

from app.live.actions import ActionError


def check_visitor(request: Request) -> None:
    """Raises `ActionError` for a request from another machine, or one that another site's page makes, be it by a name
    of its own that points here (DNS rebinding)."""
    host = request.headers.get("host", "")
    client = request.client
    if client is None or not _is_loopback(client.host) or not _is_loopback(_name(host)):
        raise ActionError(403, "not_from_here", "actions are for this machine: ask for localhost or 127.0.0.1")
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "none")
    if origin not in (None, f"http://{host}", f"https://{host}") or site not in ("none", "same-origin"):
        raise ActionError(403, "another_site", "actions are asked for on this page, not by another site")


def check_token(request: Request, token: str) -> None:
    """Raises `ActionError` for a request without the token that the controller has."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
        raise ActionError(403, "no_token", "only who started this application may ask for this")


def _name(host: str) -> str:
    """Of a `Host` header, without the port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
