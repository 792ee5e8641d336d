"""`python -m app serve`: the template service."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, TypeVar

import typer
import uvloop

from app.cli.failure import CommandError
from app.cli.server import Address
from app.cli.server import serve as run_server
from app.cli.signals import terminate_with_stdin
from app.settings import Settings, SettingsError, load_settings, unknown_variables
from app.telemetry import logs
from app.tracing_settings import load_tracing_settings

T = TypeVar("T")

_log = logging.getLogger(__name__)


def serve(
    json_line: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON with the addresses once ready.")
    ] = False,
    while_stdin_open: Annotated[
        bool, typer.Option("--while-stdin-open", help="Also end when standard input closes, and so with the parent.")
    ] = False,
) -> None:
    """Serve HTTP and gRPC until SIGTERM or Ctrl-C, then drain. Settings come from the environment: docs/settings.md."""
    settings, tracing = settings_or_fail(), or_fail(load_tracing_settings)
    logs.configure(settings.log_level)
    for sentence in unknown_variables():
        _log.warning(sentence)
    if while_stdin_open:
        terminate_with_stdin()

    def announce(address: Address) -> None:
        if json_line:
            print(json.dumps({**asdict(address), "pid": os.getpid()}), flush=True)
        else:
            _log.info("serving %s and gRPC on %s, mode %s", address.http_url, address.grpc_target, settings.mode.value)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_server(settings, announce, tracing))


def settings_or_fail() -> Settings:
    """The settings, or a `CommandError` that names what can't be used."""
    return or_fail(load_settings)


def or_fail(load: Callable[[], T]) -> T:
    """What `load` reads from the environment, or a `CommandError` that names what can't be used."""
    try:
        return load()
    except SettingsError as error:
        raise CommandError(f"bad setting: {error}", status=2) from error
