"""`python -m app scenario`: something breaks under load, and what was promised of that is measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli.failure import CommandError
from app.cli.signals import terminated_as_interrupted
from app.compose.errors import ComposeError
from app.embedded.errors import EmbeddedError
from app.loadtest.errors import LoadtestError
from app.report.files import ReportError, write_json, write_text
from app.scenarios.catalogue import SCENARIOS, Scenario, find
from app.scenarios.errors import OptionsError, ScenarioError
from app.scenarios.options import Options
from app.scenarios.pages import HEADING, html, line, verdict_table
from app.scenarios.run import Outcome, run
from app.scenarios.timeline import Mark, Second
from app.settings import ENV_PREFIX

_NOT_TAKEN = frozenset(
    {"APP_DATABASE_URL", "APP_REDIS_URL", "APP_HTTP_HOST", "APP_HTTP_PORT", "APP_GRPC_HOST", "APP_GRPC_PORT"}
)
BROKEN, UNUSABLE, INTERRUPTED = 1, 2, 130


def scenario(
    name: Annotated[str, typer.Argument(help="One of " + ", ".join(each.name for each in SCENARIOS) + ".")],
    duration: Annotated[
        float | None, typer.Option(help="Seconds for which it stays broken.", show_default="the scenario's own")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Replicas of the app.", show_default="the scenario's own")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second, to all replicas.", show_default="the scenario's own")
    ] = None,
    keys: Annotated[
        int | None, typer.Option(help="Templates that they ask for.", show_default="the scenario's own")
    ] = None,
    cold_keys: Annotated[
        int | None, typer.Option(help="postgres-slow: templates asked for at once.", show_default="2000")
    ] = None,
    compose: Annotated[
        bool, typer.Option("--compose", help="On containers of this checkout's Compose stack, by Docker.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for scenario-NAME.json and scenario-NAME.html.")] = Path("out"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No timeline, no table; broken promises only.")] = False,
) -> None:
    """Break something under load, and measure what was promised of that.

    Starts PostgreSQL, Valkey and the replicas by itself, prints what happens second by second and a verdict at the end,
    and writes both to files. With --compose they are containers, in a project and on ports of their own, which are
    removed at the end. Settings of the app in the environment (docs/settings.md) go before the scenario's own:
    APP_L1_ENABLED=false shows what the scenario looks like without L1.

    Exit status: 0 all promises kept; 1 a promise was broken; 2 it could not run; 130 interrupted.
    """
    console = Console(highlight=False)
    with terminated_as_interrupted():
        try:
            chosen = find(name)
            options = chosen.defaults.with_flags(
                duration_s=duration,
                replicas=replicas,
                rate=rate,
                keys=keys,
                cold_keys=cold_keys,
                settings=_inherited(),
                compose=compose,
            )
            outcome = _run(chosen, options, None if quiet else console)
            _write(outcome, out, None if quiet else console)
        except OptionsError as error:
            raise CommandError(str(error), UNUSABLE) from error
        except (ScenarioError, LoadtestError, EmbeddedError, ComposeError, ReportError) as error:
            raise CommandError(str(error).replace("\n", "; "), UNUSABLE) from error
        except KeyboardInterrupt:
            console.print("interrupted; all is stopped")
            raise typer.Exit(INTERRUPTED) from None
    if not outcome.verdict.ok:
        broken = [each for each in outcome.verdict.promises if not each.ok]
        raise CommandError("; ".join(f"{e.what}: {e.measured}, not {e.bar}" for e in broken), BROKEN)


def _run(chosen: Scenario, options: Options, console: Console | None) -> Outcome:
    if console is None:
        return run(chosen, options, lambda _: None)
    words = f"{chosen.breaks}\n{options.rate:g} requests a second on {options.keys} keys, {options.replicas} replicas"
    start = "building and starting containers" if options.compose else "starting"
    console.print(f"{words}; {start} …\n", markup=False, soft_wrap=True)
    console.print(HEADING, markup=False, soft_wrap=True)

    def show(news: Second | Mark) -> None:
        console.print(line(news), markup=False, soft_wrap=True)

    return run(chosen, options, show)


def _write(outcome: Outcome, out: Path, console: Console | None) -> None:
    json_file, html_file = (out / f"scenario-{outcome.scenario.name}.{kind}" for kind in ("json", "html"))
    write_json(json_file, outcome.verdict.as_json())
    write_text(html_file, html(outcome, _command(outcome)))
    if console is not None:
        console.print(verdict_table(outcome))
        console.print(f"report  {html_file.resolve().as_uri()}\nfigures {json_file}", markup=False, soft_wrap=True)


def _command(outcome: Outcome) -> list[str]:
    options = outcome.options
    return [
        *("env", *(f"{name}={value}" for name, value in sorted(options.settings.items())))[
            : 99 if options.settings else 0
        ],
        *("python", "-m", "app", "scenario", outcome.scenario.name),
        *("--duration", f"{options.duration_s:g}", "--replicas", f"{options.replicas}"),
        *("--rate", f"{options.rate:g}", "--keys", f"{options.keys}"),
        *(["--compose"] if options.compose else []),
    ]


def _inherited() -> dict[str, str]:
    """The app's settings in this process' environment, but for those that the scenario decides."""
    return {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX) and name not in _NOT_TAKEN}
