"""Where a load test goes: the app, its Redis and its database, and how each was found."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from app.client.endpoint import Endpoint
from app.client.errors import EndpointError
from app.loadtest.errors import TargetError
from app.loadtest.http import authority

STACK_FILE = Path("out/stack.json")
"""Where a running embedded stack says how it is reached."""

COMPOSE_URL = "http://127.0.0.1:8080"
COMPOSE_DATABASE_URL = "postgresql://loadtest:app@127.0.0.1:5432/app"
COMPOSE_REDIS_URL = "redis://127.0.0.1:6379/0"
GRPC_PORT = 50051
APP_ROLE = "app"
KEY_PREFIX = "template"

_PREFIX_RULE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Target:
    """An app under test. Raises `TargetError` where an address is malformed.

    `database_url` is how `pg_stat_statements` is read, `None` not to read it; `app_role` is the database role whose
    loads are counted. `redis_url` and `key_prefix` say which keys are the app's, to be emptied before a run. With
    `grpc_target` reads go there over gRPC, and only metrics are asked for over HTTP.
    """

    url: str = COMPOSE_URL
    database_url: str | None = COMPOSE_DATABASE_URL
    app_role: str = APP_ROLE
    redis_url: str = COMPOSE_REDIS_URL
    key_prefix: str = KEY_PREFIX
    grpc_target: str | None = None

    def __post_init__(self) -> None:
        app = _split("--url", self.url, {"http"}, 80)
        if app.path not in {"", "/"} or app.query or app.fragment or app.username is not None:
            raise TargetError(f"--url must be http://HOST:PORT and nothing more, is {self.url}")
        _split("--redis-url", self.redis_url, {"redis", "rediss", "unix"}, 6379)
        if self.database_url is not None:
            _split("--database-url", self.database_url, {"postgresql", "postgres"}, 5432)
        if not _PREFIX_RULE.fullmatch(self.key_prefix):
            raise TargetError("--key-prefix must be 1 to 64 letters, digits, dots, dashes and underscores")
        if self.grpc_target is not None:
            try:
                Endpoint(self.grpc_target)
            except EndpointError as error:
                raise TargetError(f"--grpc: {error}") from None

    @property
    def reads(self) -> str:
        """Where reads go, fit for messages."""
        return self.url if self.grpc_target is None else f"gRPC at {self.grpc_target}"

    def flags(self) -> list[str]:
        """The command-line flags that choose gRPC again."""
        return [] if self.grpc_target is None else ["--grpc", self.grpc_target]

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80


@dataclass(frozen=True, slots=True)
class Given:
    """What flags and environment say of the target; `None` where they say nothing.

    `grpc` is `None` where reads go over HTTP, and empty where they go over gRPC to wherever the app listens.
    `app_database_url` is the app's own: its role is the one whose loads are counted, unless `app_role` names another.
    """

    url: str | None = None
    database_url: str | None = None
    app_database_url: str | None = None
    app_role: str | None = None
    redis_url: str | None = None
    key_prefix: str | None = None
    grpc: str | None = None


def find_target(given: Given, stack: Mapping[str, object] | None, *, postgres: bool = True) -> Target:
    """The target: what is given, else what a running stack says of itself, else the compose file's published ports.

    A stack counts only where `given.url` is missing or is that stack's. Raises `TargetError`.
    """
    said = stack or {}
    if given.url is not None and _bare(given.url) != _bare(str(said.get("http_url", ""))):
        said = {}

    def first(*candidates: object) -> str:
        return next(str(candidate) for candidate in candidates if candidate)

    app_database = given.app_database_url or said.get("database_url")
    role = urlsplit(str(app_database)).username if app_database else None
    database_url = first(
        given.database_url, said.get("loadtest_database_url"), given.app_database_url, COMPOSE_DATABASE_URL
    )
    url = first(given.url, said.get("http_url"), COMPOSE_URL)
    return Target(
        url=url,
        database_url=database_url if postgres else None,
        app_role=first(given.app_role, role, APP_ROLE),
        redis_url=first(given.redis_url, said.get("redis_url"), COMPOSE_REDIS_URL),
        key_prefix=first(given.key_prefix, said.get("key_prefix"), KEY_PREFIX),
        grpc_target=None if given.grpc is None else first(given.grpc, said.get("grpc_target"), _grpc_beside(url)),
    )


def running_stack(file: Path = STACK_FILE) -> Mapping[str, object] | None:
    """What a running embedded stack says of itself; `None` where none runs, or its process is gone."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        pid = int(said["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        return dict(said)
    except (OSError, OverflowError):
        return None
    return dict(said)


def without_password(url: str) -> str:
    """The URL with any password masked, fit for messages."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    userinfo, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{userinfo.partition(':')[0]}:***@{place}"))


def _split(flag: str, url: str, schemes: set[str], default_port: int) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else default_port
    except ValueError as error:
        raise TargetError(f"{flag} is no URL: {error}") from None
    if parts.scheme not in schemes:
        raise TargetError(f"{flag} must begin with {min(schemes, key=len)}://, is {without_password(url) or 'empty'}")
    if parts.scheme != "unix" and (not parts.hostname or not 0 < port <= 65535):
        raise TargetError(f"{flag} names no host and port: {without_password(url)}")
    return parts


def _grpc_beside(url: str) -> str:
    """Where gRPC is by default, on the host of HTTP."""
    host = _split("--url", url, {"http"}, 80).hostname or ""
    return authority(host, GRPC_PORT)


def _bare(url: str) -> str:
    return url.rstrip("/").replace("//localhost:", "//127.0.0.1:")
