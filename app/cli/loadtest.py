"""`python -m app loadtest`: stampedes and spread reads against a running app, with figures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from app.loadtest.errors import LoadtestError, TargetError
from app.loadtest.log import RunLog
from app.loadtest.pages import figures, run_html
from app.loadtest.plan import Plan
from app.loadtest.progress import ConsoleProgress, RunProgress, Silent
from app.loadtest.result import RunResult, complaints
from app.loadtest.runner import run
from app.loadtest.target import Given, Target, find_target, running_stack
from app.report.files import ReportError, write_json, write_text

DEFAULTS = Plan()

FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130


def loadtest(
    concurrency: Annotated[int, typer.Option(help="Connections, and so most requests at once.")] = DEFAULTS.concurrency,
    waves: Annotated[int, typer.Option(help="Stampedes, each on a cold key of its own.")] = DEFAULTS.waves,
    ids: Annotated[int, typer.Option(help="Spread reads ask for ids 1 to this one.")] = DEFAULTS.ids,
    spread: Annotated[int, typer.Option(help="Reads of ids drawn at random, after the waves.")] = DEFAULTS.spread,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = DEFAULTS.seed,
    duration: Annotated[
        float | None, typer.Option(help="Instead of all that: spread reads for so many seconds, over several expiries.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request has failed.")] = DEFAULTS.timeout_s,
    url: Annotated[
        str | None, typer.Option(help="The app, http://HOST:PORT.", envvar="LOADTEST_URL", show_default=False)
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="PostgreSQL, to count loads in pg_stat_statements.", envvar="LOADTEST_DATABASE_URL"),
    ] = None,
    app_database_url: Annotated[str | None, typer.Option(envvar="APP_DATABASE_URL", hidden=True)] = None,
    role: Annotated[
        str | None,
        typer.Option(help="Database role of the app, whose loads are counted.", show_default="APP_DATABASE_URL's"),
    ] = None,
    redis_url: Annotated[str | None, typer.Option(help="The app's Redis.", envvar="APP_REDIS_URL")] = None,
    key_prefix: Annotated[
        str | None, typer.Option(help="First part of the app's keys there.", envvar="APP_CACHE_KEY_PREFIX")
    ] = None,
    keep_caches: Annotated[bool, typer.Option("--keep-caches", help="Do not empty the caches before the run.")] = False,
    no_postgres: Annotated[bool, typer.Option("--no-postgres", help="Do not count loads in PostgreSQL.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there, as JSON.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report with charts there, as one HTML file.")
    ] = None,
    grpc: Annotated[
        bool, typer.Option("--grpc", help="Read over gRPC instead, from TARGET, else from where the app listens.")
    ] = False,
    grpc_target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="With --grpc: HOST:PORT to read from, directly or by way of a proxy."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table; errors only.")] = False,
) -> None:
    """Send stampedes and spread reads to a running app, and count what reached its database.

    The defaults are 200 simultaneous reads of a cold key, 25 times over, then 2,500 reads spread over 220 ids: 7,500
    requests, for which 220 database loads are the least possible. Caches are emptied first: the app's keys in Redis,
    nothing else.

    Addresses come from flags, else from the environment, else from a stack started by `python -m app up` in this
    folder, else they are the compose file's ports on loopback.

    With --grpc the same reads go over gRPC, a connection each, and the same figures come out; metrics are still asked
    for over HTTP.

    Database loads are counted by the app's metrics and by PostgreSQL itself; the two must agree, so keep other traffic
    away meanwhile.

    Exit status: 0 all well; 1 requests failed or the counts differ; 2 the test could not run; 130 interrupted.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    console = Console(highlight=False)
    try:
        plan = Plan(concurrency, waves, ids, spread, seed, duration, timeout, keep_caches)
        if grpc_target is not None and not grpc:
            raise TargetError(f"{grpc_target} goes with --grpc only; for HTTP, --url names the app")
        over_grpc = (grpc_target or "") if grpc else None
        given = Given(url, database_url, app_database_url, role, redis_url, key_prefix, over_grpc)
        target = find_target(given, running_stack(), postgres=not no_postgres)
        if not quiet:
            console.print(f"{plan.describe()}, against {target.reads}", markup=False, soft_wrap=True)
        log = _run(plan, target, None if quiet else console)
        result = RunResult.of(log)
        if json_file is not None:
            write_json(json_file, result.as_json())
        if html_file is not None:
            write_text(html_file, run_html(log, ["./loadtest.sh", *plan.flags(), *target.flags()]))
    except (LoadtestError, ReportError) as error:
        errors.print(f"loadtest: {error}")
        raise typer.Exit(UNUSABLE) from None
    except KeyboardInterrupt:
        errors.print("loadtest: interrupted")
        raise typer.Exit(INTERRUPTED) from None
    if not quiet:
        console.print(figures([log], "Result"))
    problems = complaints(log)
    for problem in problems:
        errors.print(f"loadtest: {problem}")
    if problems:
        raise typer.Exit(FAILED)


def _run(plan: Plan, target: Target, console: Console | None) -> RunLog:
    async def running(progress: RunProgress) -> RunLog:
        return await run(plan, target, progress)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if console is None:
            return runner.run(running(Silent()))
        with ConsoleProgress(console) as progress:
            return runner.run(running(progress))
