"""`python -m app loom`: the gRPC debugging proxy."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from app.cli import loom_session, loom_values
from app.cli.failure import CommandError
from app.cli.loom_flags import from_file, show_version
from app.cli.signals import terminate_with_stdin
from app.loom.bootstrap import Config, HostPort, ListenError, Loom, running
from app.loom.capture import CaptureConfig
from app.loom.demo.backend import Shop
from app.loom.demo.backend import serving as demo_backend
from app.loom.demo.traffic import flowing
from app.loom.proxy.limits import Limits
from app.loom.recording.session import SessionError
from app.loom.rules.file import RulesError
from app.telemetry import logs

_log = logging.getLogger(__name__)

GC_THRESHOLDS = 50_000, 20, 50
"""Allocations before a collection, and how many of each generation before one of the next: a call makes no cycles."""

_TLS, _AWAY, _KEPT, _MEANING, _CHANGED, _RUN = (
    "TLS", "A backend that is away", "What is kept", "What messages mean", "What is changed", "This run",
)  # fmt: skip


def _file(meaning: str, panel: str) -> Any:
    return typer.Option(metavar="FILE", exists=True, dir_okay=False, readable=True, help=meaning, rich_help_panel=panel)


def loom(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where gRPC clients connect; without a host, on loopback.")
    ] = "127.0.0.1:9999",
    backend: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="The gRPC server behind it; of a name's addresses each has its turn."),
    ] = "localhost:50051",
    ui: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the inspector, the probes and the metrics are.")
    ] = "127.0.0.1:9998",
    ui_open: Annotated[
        bool, typer.Option("--ui-open", help="Ask for no token off loopback: only loopback publishes the --ui port.")
    ] = False,
    tls_cert: Annotated[Path | None, _file("Speak TLS with clients: the certificate.", _TLS)] = None,
    tls_key: Annotated[Path | None, _file("Its key, without a password.", _TLS)] = None,
    tls_client_ca: Annotated[Path | None, _file("Clients must show a certificate of this authority.", _TLS)] = None,
    backend_tls: Annotated[
        bool, typer.Option("--backend-tls", help="Speak TLS with the backend.", rich_help_panel=_TLS)
    ] = False,
    backend_tls_ca: Annotated[
        Path | None, _file("The authority of its certificate, if not a public one.", _TLS)
    ] = None,
    backend_tls_cert: Annotated[Path | None, _file("The certificate to show to the backend.", _TLS)] = None,
    backend_tls_key: Annotated[Path | None, _file("Its key, without a password.", _TLS)] = None,
    backend_tls_skip_verify: Annotated[
        bool,
        typer.Option(
            "--backend-tls-skip-verify", help="Accept any certificate from the backend: not safe.", rich_help_panel=_TLS
        ),
    ] = False,
    dial_timeout_s: Annotated[
        float,
        typer.Option(
            "--dial-timeout-s",
            min=0.1,
            max=60,
            metavar="SECONDS",
            help="Seconds to reach the backend, its name and TLS included.",
            rich_help_panel=_AWAY,
        ),
    ] = 5.0,
    breaker_failures: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="Failed dials or lost connections in a row that open the circuit breaker.",
            rich_help_panel=_AWAY,
        ),
    ] = 5,
    breaker_open_s: Annotated[
        float,
        typer.Option(
            "--breaker-open-s",
            min=0.1,
            max=3600,
            metavar="SECONDS",
            help="Seconds that it then keeps the backend alone.",
            rich_help_panel=_AWAY,
        ),
    ] = 30.0,
    session: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Keep the calls in ~/.loom/sessions/NAME.jsonl, and show those in it.",
            rich_help_panel=_KEPT,
        ),
    ] = "",
    redact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Metadata to keep secret, besides what always is. Repeatable.", rich_help_panel=_KEPT
        ),
    ] = None,
    reflect_header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help="Metadata to send with reflection, such as credentials. Repeatable.",
            rich_help_panel=_MEANING,
        ),
    ] = None,
    proto_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Explain messages by the .proto files in it.",
            rich_help_panel=_MEANING,
        ),
    ] = None,
    descriptor_set: Annotated[Path | None, _file("Explain messages by protoc's descriptor set.", _MEANING)] = None,
    mutate: Annotated[Path | None, _file("Change calls by the rules in it; SIGHUP reads it again.", _CHANGED)] = None,
    authority: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Tell the backend this `:authority` in place of the client's.",
            rich_help_panel=_CHANGED,
        ),
    ] = "",
    stop_s: Annotated[
        float,
        typer.Option(
            "--stop-s",
            min=0,
            max=3600,
            metavar="SECONDS",
            help="Seconds that calls may take to end when Loom is stopped.",
            rich_help_panel=_RUN,
        ),
    ] = 30.0,
    log: Annotated[
        str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.", rich_help_panel=_RUN)
    ] = "info",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="The same as --log debug.", rich_help_panel=_RUN)
    ] = False,
    json_line: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON with the addresses once ready.", rich_help_panel=_RUN)
    ] = False,
    while_stdin_open: Annotated[
        bool,
        typer.Option(
            "--while-stdin-open",
            help="Also end when standard input closes, and so with the parent.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Bring a backend along, and clients that call it until Loom is stopped.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    replay: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Make a session's calls again, at the backend, and end; a session's name too.",
            rich_help_panel=_RUN,
        ),
    ] = "",
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="What --replay sends instead of what was recorded. Repeatable.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    export: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Print a session decoded, one line of JSON a call, and end; by its name too.",
            rich_help_panel=_RUN,
        ),
    ] = "",
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours, whatever the terminal.", rich_help_panel=_RUN)
    ] = False,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            is_eager=True,
            callback=from_file,
            help="Flags as a TOML file has them; those given here go first. Without it, loom.toml where there is one.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=show_version, help="Print the version.", rich_help_panel=_RUN
        ),
    ] = False,
) -> None:
    """Pass gRPC calls through to a backend, unchanged, and record them, until SIGTERM or Ctrl-C.

    Exit status: 0 all well; 1 it failed, or a replayed call came out otherwise; 2 wrong flags.
    """
    if log.lower() not in ("debug", "info", "warning", "error"):
        raise CommandError(f"--log: {log!r} is no level; debug, info, warning and error are", status=2)
    logs.configure("debug" if verbose else log)
    if config_file is not None:
        _log.info("flags that aren't given are those of %s", config_file)
    config = Config(
        listen=loom_values.address("--listen", listen),
        backend=loom_values.address("--backend", backend, lowest_port=1),
        ui=loom_values.address("--ui", ui),
        listen_tls=loom_values.listen_tls(tls_cert, tls_key, tls_client_ca),
        listen_certificate=tls_cert,
        backend_tls=loom_values.backend_tls_of(
            backend_tls, backend_tls_ca, backend_tls_cert, backend_tls_key, skip_verify=backend_tls_skip_verify
        ),
        rules=mutate,
        authority=loom_values.authority_name(authority),
        stop_s=stop_s,
        is_ui_open=ui_open,
        limits=Limits(dial_s=dial_timeout_s),
        breaker_failures=breaker_failures,
        breaker_open_s=breaker_open_s,
        capture=CaptureConfig(
            session=loom_values.session_file(session),
            redact=[loom_values.redacted_name(name) for name in redact or ()],
            reflect_metadata=[loom_values.metadata_pair(text) for text in reflect_header or ()],
            schema=loom_values.schema_of(proto_dir, descriptor_set),
        ),
    )
    if demo + bool(replay) + bool(export) > 1:
        raise CommandError("--demo, --replay and --export exclude each other", status=2)
    if demo and (backend_tls or config.listen_tls is not None):
        raise CommandError("--demo brings its own backend and clients, which speak no TLS", status=2)
    if export:
        loom_session.export(export, config.capture.schema)
        return
    if metadata and not replay:
        raise CommandError("--metadata says what --replay sends, and there is no --replay", status=2)
    given = loom_session.given_metadata(metadata or ())
    if replay:
        if not loom_session.replay_file(replay, config, given, no_color=no_color, as_json=json_line):
            raise typer.Exit(1)
        return
    if while_stdin_open:
        terminate_with_stdin()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            # The second signal cancels it, and nothing else does.
            with contextlib.suppress(asyncio.CancelledError):
                runner.run(_run(config, json_line, Shop.load() if demo else None))
        except RulesError as error:
            raise CommandError(f"--mutate: {error}", status=2) from error
        except (ListenError, SessionError) as error:
            raise CommandError(str(error)) from error


async def _run(config: Config, json_line: bool, shop: Shop | None) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _signalled, asked, asyncio.current_task())
    async with contextlib.AsyncExitStack() as stack:
        if shop is not None:
            port = await stack.enter_async_context(demo_backend(shop))
            config = replace(config, backend=HostPort("127.0.0.1", port))
        loom = await stack.enter_async_context(running(config))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        loop.add_signal_handler(signal.SIGHUP, loom.mutations.reload)
        _announce(loom, config, json_line)
        if shop is not None:
            await stack.enter_async_context(flowing(str(loom.listen), shop))
        await asked.wait()
        _log.info("stopping: the clients are asked to go, and calls under way may take %g s", config.stop_s)


def _signalled(asked: asyncio.Event, task: asyncio.Task[None] | None) -> None:
    """The first signal stops it in good order, the second at once."""
    if asked.is_set() and task is not None:
        task.cancel()
    asked.set()


def _announce(loom: Loom, config: Config, json_line: bool) -> None:
    if json_line:
        document = {"listen": str(loom.listen), "ui": f"http://{loom.ui}", "backend": str(config.backend)}
        if loom.token is not None:
            document["token"] = loom.token
        print(json.dumps({**document, "pid": os.getpid()}), flush=True)
    else:
        _log.info(
            "gRPC clients connect to %s, behind it is %s; see their calls at %s", loom.listen, config.backend, loom.link
        )
