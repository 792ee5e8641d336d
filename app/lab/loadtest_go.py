"""`loadtest-go`: the Go demo's load test, its published table beside ours on the same workload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import uvloop

from app.embedded.directory import LogDirectory
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.lab.experiment import Experiment, Options
from app.lab.result import Result, Verdict, held, not_reproduced
from app.loadtest.plan import Plan
from app.loadtest.result import RunResult
from app.loadtest.runner import run as run_plan
from app.loadtest.target import Target
from app.report.charts import Axis, Bars, bar_chart
from app.report.html import Chart
from app.report.table import Row, Table, count, milliseconds, share, times

LOAD_DELAY_MS = 50
"""Added to each database load, as `make demo` does."""
APP_ROLE, COUNTING_ROLE = "app", "loadtest"
MODES = ("none", "singleflight", "full")
QUICK_MODES = ("full",)


@dataclass(frozen=True, slots=True)
class Published:
    """The Go demo's `loadtest.sh`: 200 concurrent, 25 waves, a TTL of 30 s. The counts are given as about so many."""

    requests: int = 7_500
    hit_ratio: float = 0.97
    db_loads: int = 220
    shared: int = 18


THEIRS = Published()


class _Share:
    """Tells the experiment's progress from a run's: `begin` and `advance` are the run's own."""

    def __init__(self, options: Options, base: float, width: float, mode: str) -> None:
        self._options, self._base, self._width, self._mode = options, base, width, mode
        self._what, self._total, self._done, self._part = "", 1.0, 0.0, -1

    def begin(self, what: str, total: float) -> None:
        self._what, self._total, self._done = what, total, 0.0
        self._part += 1
        self.advance(0)

    def advance(self, units: float) -> None:
        self._done += units
        share_ = min((self._part + self._done / self._total) / 2, 1.0)
        self._options.progress(self._base + self._width * share_, f"mode {self._mode}: {self._what}")


def run(options: Options) -> Result:
    plan = Plan(seed=options.seed)
    return result(measure(plan, QUICK_MODES if options.quick else MODES, options), plan)


def measure(plan: Plan, modes: Sequence[str], options: Options) -> dict[str, RunResult]:
    """The plan's figures by mode, each on an app of its own over the same fresh servers."""
    options.progress(0.0, "starting PostgreSQL and Valkey")
    results = {}
    with LogDirectory("lab") as logs, EmbeddedStack() as stack:
        for place, mode in enumerate(modes):
            settings = {
                "APP_LOG_LEVEL": "warning",
                "APP_MODE": mode,
                "APP_LOAD_DELAY_MS": f"{LOAD_DELAY_MS}",
                "APP_DATABASE_URL": stack.postgres.url(APP_ROLE),
                "APP_REDIS_URL": stack.redis.url(),
                "APP_CACHE_KEY_PREFIX": mode,
            }
            options.progress(0.1 + 0.9 * place / len(modes), f"starting the app in mode {mode}")
            with Replica(settings, log=logs / f"{mode}.log") as replica:
                target = Target(
                    url=replica.http_url,
                    database_url=stack.postgres.url(COUNTING_ROLE),
                    app_role=APP_ROLE,
                    redis_url=stack.redis.url(),
                    key_prefix=mode,
                )
                progress = _Share(options, 0.1 + 0.9 * place / len(modes), 0.9 / len(modes), mode)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    results[mode] = RunResult.of(runner.run(run_plan(plan, target, progress)))
    return results


def result(results: Mapping[str, RunResult], plan: Plan) -> Result:
    """What was measured, beside what was published."""
    return Result(
        [_table(results)],
        {"loads": _chart(results)},
        [verdict for mode, each in results.items() if mode != "none" for verdict in _verdicts(mode, each)],
        {"published": asdict(THEIRS), "runs": {mode: each.as_json() for mode, each in results.items()}},
        [f"{plan.describe()}. {_NOTE}"],
    )


_NOTE = (
    f"Over HTTP, on a fresh embedded PostgreSQL and Valkey, {LOAD_DELAY_MS} ms a database load. The app and PostgreSQL "
    "both count the loads; the least possible is computed from the log of requests (docs/loadtest.md). The Go demo's "
    "figures are those that were published with it, where they are given as about so many."
)


def _verdicts(mode: str, each: RunResult) -> list[Verdict]:
    return [
        held(
            f"{mode}: every request answered",
            f"{THEIRS.requests:,} requests",
            f"{each.requests - each.errors:,} of {each.requests:,}",
            "0 errors",
            each.errors == 0 and each.requests == THEIRS.requests,
        ),
        held(
            f"{mode}: hit rate",
            f"{THEIRS.hit_ratio:.0%}",
            share(each.hit_ratio),
            f"≥ {THEIRS.hit_ratio:.0%}",
            each.hit_ratio >= THEIRS.hit_ratio,
        ),
        held(
            f"{mode}: database loads",
            f"about {THEIRS.db_loads}",
            f"{each.db_loads}",
            f"{each.least_loads}, the least possible",
            each.db_loads == each.least_loads == each.db_loads_by_postgres,
        ),
        not_reproduced(
            f"{mode}: shared calls",
            f"about {THEIRS.shared}",
            f"{each.shared:,}",
            "Their script starts a process for each request, so few of a wave overlap. Here a wave's connections are "
            "open before it begins and all ask in one instant: nearly every request of a wave waits for its one load.",
        ),
    ]


def _table(results: Mapping[str, RunResult]) -> Table:
    def row(label: str, theirs: str, cell: Callable[[RunResult], str], *, strong: bool = False) -> Row:
        return Row(label, [theirs, *map(cell, results.values())], strong)

    return Table(
        "The Go demo's load test: published | ours, by mode",
        ["Go demo", *results],
        [
            row("Requests", f"{THEIRS.requests:,}", lambda r: count(r.requests)),
            row("Errors", "–", lambda r: count(r.errors)),
            row("Hit rate", f"{THEIRS.hit_ratio:.0%}", lambda r: share(r.hit_ratio)),
            row("Database loads", f"about {THEIRS.db_loads}", lambda r: count(r.db_loads), strong=True),
            row("  by PostgreSQL's count", "–", lambda r: count(r.db_loads_by_postgres)),
            row("Least possible loads", "–", lambda r: count(r.least_loads)),
            row("Stampede factor", "–", lambda r: times(r.stampede_factor), strong=True),
            row("Shared calls", f"about {THEIRS.shared}", lambda r: count(r.shared)),
            row("Requests a second", "–", lambda r: f"{r.rps:,.0f}"),
            row("p50", "–", lambda r: milliseconds(r.p50_ms)),
            row("p99", "–", lambda r: milliseconds(r.p99_ms)),
        ],
    )


def _chart(results: Mapping[str, RunResult]) -> Chart:
    groups: Sequence[str] = ["Go demo", *results]
    svg = bar_chart(
        "Database loads of the same 7,500 requests, against the least possible number",
        groups,
        [
            Bars("database loads", [THEIRS.db_loads, *(each.db_loads for each in results.values())], "vermilion"),
            Bars("least possible", [None, *(each.least_loads for each in results.values())], "green"),
        ],
        Axis("database loads (queries)"),
        lambda value: f"{value:,.0f}",
    )
    return Chart("Database loads", svg)


LOADTEST_GO = Experiment(
    "loadtest-go",
    "What does the Go demo's load test come to here, and how few loads could have done?",
    run,
)
