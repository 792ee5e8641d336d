"""The embedded stack that `up` and `demo` run, and the file that tells others where it is."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from app.embedded.loom import LoomProcess
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.live.actions import MAX_CALLERS
from app.live.callers import SPARE_FILES
from app.live.controller import Controller
from app.loadtest.errors import TargetError
from app.loadtest.runner import allow_files
from app.loadtest.target import STACK_FILE
from app.report.files import write_json

APP_ROLE, UNPROTECTED_ROLE, LOADTEST_ROLE = "app", "unprotected", "loadtest"


def app_environment(stack: EmbeddedStack, **settings: str) -> dict[str, str]:
    """The environment of an app on the embedded servers, which tells our settings from those of this process."""
    inherited = {name: value for name, value in os.environ.items() if name.startswith("APP_")}
    return {
        "APP_LOG_LEVEL": "warning",
        **inherited,
        "APP_DATABASE_URL": stack.postgres.url(APP_ROLE),
        "APP_REDIS_URL": stack.redis.url(),
        **settings,
    }


@contextlib.contextmanager
def announced(
    stack: EmbeddedStack,
    replica: Replica,
    loom: LoomProcess,
    key_prefix: str,
    file: Path = STACK_FILE,
    unprotected: Replica | None = None,
) -> Iterator[dict[str, str | int]]:
    """Say in `file` where the stack is, as long as the context lasts, and which keys in Redis are the app's.

    Gives what is said.
    """
    said: dict[str, str | int] = {
        "http_url": replica.http_url,
        "grpc_target": replica.grpc_target,
        "loom_target": loom.target,
        "loom_url": loom.url,
        "database_url": stack.postgres.url(APP_ROLE),
        "loadtest_database_url": stack.postgres.url(LOADTEST_ROLE),
        "redis_url": stack.redis.url(),
        "key_prefix": key_prefix,
        "http_port": _port(replica.http_url),
        "grpc_port": _port(replica.grpc_target),
        "loom_port": _port(loom.target),
        "loom_ui_port": _port(loom.url),
        "postgres_port": stack.postgres.port,
        "redis_port": stack.redis.port,
        "pid": os.getpid(),
    }
    if unprotected is not None:
        said["unprotected_http_url"] = unprotected.http_url
    write_json(file, said)
    try:
        yield said
    finally:
        _withdraw(file)


@contextlib.contextmanager
def controls(console: Console) -> Iterator[tuple[Controller, dict[str, str]]]:
    """A controller for the live page, which listens from now on, and the settings by which an app finds it.

    It answers once it is `serving`.
    """

    def say(what: str) -> None:
        console.print(f"live page: {what}", markup=False)

    with contextlib.suppress(TargetError):  # told when it is too few
        allow_files(MAX_CALLERS + SPARE_FILES)  # which apps that are started from now on inherit
    with contextlib.closing(Controller(say)) as controller:
        yield (
            controller,
            {
                "APP_LIVE_CONTROLS_URL": controller.url,
                "APP_LIVE_CONTROLS_TOKEN": controller.token,
                "APP_LIVE_REPORTS_DIR": str(STACK_FILE.parent.resolve()),
            },
        )


def loom_before(
    replica: Replica, environment: Mapping[str, str], *, port: int = 0, ui_port: int = 0, log: Path | None = None
) -> LoomProcess:
    """Loom, to be started, in front of a replica that runs with `environment`."""
    tls = bool(environment.get("APP_GRPC_TLS_CERT_FILE"))
    return LoomProcess(replica.grpc_target, port=port, ui_port=ui_port, backend_tls=tls, log=log)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _withdraw(file: Path) -> None:
    """Remove the file, unless another stack has said its own there since."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(file.read_text(encoding="utf-8")).get("pid") == os.getpid():
            file.unlink()
