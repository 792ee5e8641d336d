"""`python -m app demo`: a stampede, then its cure, on the same workload, side by side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import typer
import uvloop
from rich.console import Console

from app.cli.failure import CommandError
from app.cli.first_calls import first_calls
from app.cli.serve import settings_or_fail
from app.cli.signals import terminated_as_interrupted
from app.cli.stack import APP_ROLE, LOADTEST_ROLE, UNPROTECTED_ROLE, announced, app_environment, controls, loom_before
from app.cli.up import show_addresses, stay_up
from app.embedded.child import Child
from app.embedded.directory import LogDirectory
from app.embedded.errors import EmbeddedError
from app.embedded.loom import LoomProcess
from app.embedded.replica import Replica
from app.embedded.server import free_port
from app.embedded.stack import EmbeddedStack
from app.live.live import OWN
from app.live.stage import App, Stage
from app.loadtest.errors import LoadtestError
from app.loadtest.log import RunLog
from app.loadtest.pages import compare_html, figures
from app.loadtest.plan import Plan
from app.loadtest.progress import ConsoleProgress
from app.loadtest.result import RunResult, complaints
from app.loadtest.runner import run
from app.loadtest.target import Target
from app.report.files import ReportError, write_json, write_text
from app.settings import Mode

C = TypeVar("C", bound=Child)

LOAD_DELAY_MS = 50
"""Added to each database load, so that a stampede shows on a machine where the real load takes half a millisecond."""
UNPROTECTED_NAME, UNPROTECTED_HTTP_PORT = "app-unprotected", 8081
JSON_FILE, HTML_FILE = Path("out/demo.json"), Path("out/demo.html")


def demo() -> None:
    """Show a stampede and its cure: the same load against an unprotected app, then against a protected one.

    Starts PostgreSQL, Valkey and the apps by itself; prints one table, writes out/demo.json and out/demo.html, and
    stays up until Ctrl-C: both apps on one live page, and Loom in front of the protected one. With DEMO_ONCE=1 in the
    environment it ends when the figures are printed.
    """
    console = Console(highlight=False)
    mode = settings_or_fail().mode
    once = os.environ.get("DEMO_ONCE", "") not in ("", "0")
    with terminated_as_interrupted():
        try:
            problems = _show(console, mode, once=once)
        except (EmbeddedError, LoadtestError, ReportError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            console.print("interrupted; all is stopped")
            raise typer.Exit(130) from None
    if problems:
        raise CommandError("; ".join(problems))


def _show(console: Console, mode: Mode, *, once: bool) -> list[str]:
    console.print("starting PostgreSQL and Valkey …")
    with LogDirectory("logs") as logs, EmbeddedStack() as stack, controls(console) as (controller, live):
        before = _measure(console, stack, Mode.NONE, UNPROTECTED_ROLE, logs)
        unprotected_port = _free_port(UNPROTECTED_HTTP_PORT)
        peers = {"APP_LIVE_PEERS": f"{UNPROTECTED_NAME}=http://127.0.0.1:{unprotected_port}"}
        with _app(stack, mode, APP_ROLE, logs, {**live, **peers}) as replica:
            runs = [before, _load(console, stack, mode, APP_ROLE, replica)]
            delay_ms = os.environ.get("APP_LOAD_DELAY_MS", LOAD_DELAY_MS)
            console.print(figures(runs, f"The same load, {delay_ms} ms a database load"))
            write_json(JSON_FILE, {"runs": [RunResult.of(log).as_json() for log in runs]})
            write_text(HTML_FILE, compare_html(runs, ["make", "demo"]))
            console.print(
                f"\nreport  {HTML_FILE.resolve().as_uri()}\nfigures {JSON_FILE}", markup=False, soft_wrap=True
            )
            problems = [f"{log.mode}: {complaint}" for log in runs for complaint in complaints(log)]
            if not once and not problems:
                token = {"APP_LIVE_CONTROLS_TOKEN": controller.token, "APP_HTTP_PORT": str(unprotected_port)}
                with (
                    _unprotected(stack, logs, token) as unprotected,
                    _loom(replica, logs) as loom,
                    announced(stack, replica, loom, APP_ROLE, unprotected=unprotected) as said,
                    controller.serving(
                        Stage(
                            stack.redis,
                            [App(OWN, replica), App(UNPROTECTED_NAME, unprotected)],
                            controller.token,
                            mode,
                            {"Loom": loom.url},
                        )
                    ),
                ):
                    first_calls(loom.target)
                    show_addresses(console, said)
                    console.print(
                        f"Both apps stay up, the unprotected one at {unprotected.http_url}; the live page shows both. "
                        "Ctrl-C ends it all.",
                        markup=False,
                        soft_wrap=True,
                    )
                    stay_up(console, replica, unprotected, loom)
            return problems


def _measure(console: Console, stack: EmbeddedStack, mode: Mode, role: str, logs: Path) -> RunLog:
    with _app(stack, mode, role, logs) as replica:
        return _load(console, stack, mode, role, replica)


@contextmanager
def _app(
    stack: EmbeddedStack, mode: Mode, role: str, logs: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Replica]:
    """An app with a database role and Redis keys of its own, so that nothing of one run is left for the next."""
    environment = {**_environment(stack, mode, role), **(settings or {})}
    usual = {"APP_HTTP_PORT": "8080", "APP_GRPC_PORT": "50051"}
    log = logs / f"{role}.log"
    with _first_to_start(Replica({**environment, **usual}, log=log), Replica(environment, log=log)) as replica:
        yield replica


@contextmanager
def _unprotected(stack: EmbeddedStack, logs: Path, settings: Mapping[str, str]) -> Iterator[Replica]:
    """The unprotected app once more, to stay."""
    environment = {**_environment(stack, Mode.NONE, UNPROTECTED_ROLE), **settings}
    with Replica(environment, log=logs / f"{UNPROTECTED_ROLE}.log") as replica:
        yield replica


def _environment(stack: EmbeddedStack, mode: Mode, role: str) -> dict[str, str]:
    return {
        "APP_LOAD_DELAY_MS": str(LOAD_DELAY_MS),
        **app_environment(stack),
        "APP_MODE": mode.value,
        "APP_DATABASE_URL": stack.postgres.url(role),
        "APP_CACHE_KEY_PREFIX": role,
    }


def _free_port(usual: int) -> int:
    """This one, or another where it is taken."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", usual)):
        return usual
    return free_port("127.0.0.1")


@contextmanager
def _loom(replica: Replica, logs: Path) -> Iterator[LoomProcess]:
    log = logs / "loom.log"
    usual = loom_before(replica, os.environ, port=9999, ui_port=9998, log=log)
    with _first_to_start(usual, loom_before(replica, os.environ, log=log)) as loom:
        yield loom


@contextmanager
def _first_to_start(usual: C, on_free_ports: C) -> Iterator[C]:
    child = usual
    try:
        child.start()
    except EmbeddedError:  # a port that is taken, most likely; whatever else it was comes again
        child = on_free_ports
        child.start()
    try:
        yield child
    finally:
        child.stop()


def _load(console: Console, stack: EmbeddedStack, mode: Mode, role: str, replica: Replica) -> RunLog:
    target = Target(
        url=replica.http_url,
        database_url=stack.postgres.url(LOADTEST_ROLE),
        app_role=role,
        redis_url=stack.redis.url(),
        key_prefix=role,
    )
    console.print(f"\nprotection [bold]{mode.value}[/bold]")
    with ConsoleProgress(console) as progress, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(Plan(), target, progress))
