"""`approaches`: the Go write-up's table, and the modes of the service as further rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from app.embedded.redis import EmbeddedRedis
from app.lab.approaches import ways
from app.lab.approaches.ways import Answered, Way
from app.lab.experiment import Experiment, Options
from app.lab.process import Mode
from app.lab.result import Result, Verdict, held, not_reproduced
from app.report.charts import Axis, Bars, bar_chart
from app.report.html import Chart
from app.report.table import Row, Table

REQUESTS = 100
LIMIT_MS = 52.0
RUNS, QUICK_RUNS = 100, 10

ONE_BY_ONE, AT_ONCE = "no cache, one by one", "no cache, all at once"
MUTEX_ALONE, MUTEX_CACHED = "mutex, no cache", "mutex, cache looked into again"
SINGLEFLIGHT = "singleflight"
FLEETS: Sequence[tuple[str, Mode]] = (
    (f"singleflight, {ways.PROCESSES} processes", "singleflight"),
    (f"fleet, {ways.PROCESSES} processes", "fleet"),
    (f"full, {ways.PROCESSES} processes", "full"),
)


@dataclass(frozen=True, slots=True)
class Published:
    calls: int
    total_ms: float


THEIRS: Mapping[str, Published] = {
    ONE_BY_ONE: Published(100, 5_000),
    MUTEX_ALONE: Published(1, 5_000),
    MUTEX_CACHED: Published(1, 5_000),
    SINGLEFLIGHT: Published(1, 52),
}
"""Of the Go write-up: no cache, mutex only (which may be either of two here), singleflight."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A way's runs. Other work of the machine only ever adds to the time, so the least is what the way itself takes."""

    runs: Sequence[Answered]

    @property
    def calls(self) -> int:
        """The most of any run."""
        return max(run.calls for run in self.runs)

    @property
    def median_ms(self) -> float:
        return median(run.elapsed_ms for run in self.runs)

    @property
    def least_ms(self) -> float:
        return min(run.elapsed_ms for run in self.runs)


def run(options: Options) -> Result:
    options.progress(0.0, "starting Valkey")
    with EmbeddedRedis() as redis:
        return result(asyncio.run(_measure(redis.url(), options)))


async def _measure(redis_url: str, options: Options) -> dict[str, Measured]:
    runs = QUICK_RUNS if options.quick else RUNS
    options.progress(0.05, "no cache, mutex: a hundred calls, one after the other")
    # Both do nothing but wait, so they can do it at the same time.
    one_by_one, alone = await asyncio.gather(ways.one_by_one(REQUESTS), ways.mutex_alone(REQUESTS))
    measured = {ONE_BY_ONE: Measured([one_by_one])}
    measured[AT_ONCE] = await _repeated(ways.all_at_once, runs)
    measured[MUTEX_ALONE] = Measured([alone])
    options.progress(0.5, "mutex, singleflight")
    measured[MUTEX_CACHED] = await _repeated(ways.mutex_and_cache, runs)
    measured[SINGLEFLIGHT] = await _repeated(ways.singleflight, 3 * runs)
    for place, (name, mode) in enumerate(FLEETS):
        options.progress(0.7 + 0.1 * place, name)
        async with ways.fleet(mode, redis_url, prefix=f"lab-{mode}") as fleet:
            measured[name] = Measured([await fleet.ask(REQUESTS, f"{number}") for number in range(runs)])
    return measured


async def _repeated(way: Way, runs: int) -> Measured:
    return Measured([await way(REQUESTS) for _ in range(runs)])


def result(measured: Mapping[str, Measured]) -> Result:
    """What was measured, beside what was published."""
    return Result(
        [_table(measured)],
        {"calls": _calls_chart(measured), "time": _time_chart(measured)},
        _verdicts(measured),
        {
            name: {
                "calls": each.calls,
                "median_ms": round(each.median_ms, 3),
                "least_ms": round(each.least_ms, 3),
                "runs": len(each.runs),
                "published": asdict(THEIRS[name]) if name in THEIRS else None,
            }
            for name, each in measured.items()
        },
        _NOTES,
    )


_NOTES = (
    (
        f"{REQUESTS} requests for one key that nobody holds, and a backend that takes {ways.LOAD_S * 1e3:g} ms a call, "
        "any number of them at a time. The time is from the first request to the last answer."
    ),
    (
        f"Rows with {ways.PROCESSES} processes are read paths of the service, each with connections of its own to an "
        "embedded Valkey, and share the requests; they run in one process of the operating system. The other rows are "
        "app/concurrency alone."
    ),
)


def _verdicts(measured: Mapping[str, Measured]) -> list[Verdict]:
    single, alone, cached = measured[SINGLEFLIGHT], measured[MUTEX_ALONE], measured[MUTEX_CACHED]
    one_by_one = measured[ONE_BY_ONE]
    verdicts = [
        held(
            "no cache: as published, where requests go one by one",
            "100 calls, 5,000 ms",
            f"{one_by_one.calls} calls, {one_by_one.least_ms:,.0f} ms",
            "100 calls, ≥ 5,000 ms",
            one_by_one.calls == REQUESTS and one_by_one.least_ms >= REQUESTS * ways.LOAD_S * 1e3 * 0.99,
            "All at once they take 50 ms, as nothing here limits the backend: the published 5,000 ms are the sum.",
        ),
        not_reproduced(
            "mutex only",
            "1 call, 5,000 ms",
            f"{alone.calls} calls, {alone.least_ms:,.0f} ms; or {cached.calls} call, {cached.least_ms:.1f} ms",
            "Without a cache behind the lock everybody calls in turn: 100 calls. With one, looked into again under the "
            "lock, 99 find the value and have no 50 ms to wait for. One call and 5,000 ms do not go together.",
        ),
        held(
            "singleflight",
            "1 call, 52 ms",
            f"{single.calls} call, {single.least_ms:.1f} ms at best, {single.median_ms:.1f} ms in the median",
            f"1 call, ≤ {LIMIT_MS:g} ms at best",
            single.calls == 1 and single.least_ms <= LIMIT_MS,
            f"Of {len(single.runs)} runs, as other work of the machine only adds to the time.",
        ),
    ]
    for name, mode in FLEETS:
        most = ways.PROCESSES if mode == "singleflight" else 1
        each = measured[name]
        calls = f"at most {each.calls} calls" if most > 1 else f"{each.calls} call{'s' if each.calls > 1 else ''}"
        verdicts.append(
            held(
                name,
                "one a process" if most > 1 else "one in all",
                f"{calls}, {each.median_ms:.1f} ms in the median",
                f"≤ {most} calls" if most > 1 else "1 call",
                each.calls <= most,
            )
        )
    return verdicts


def _table(measured: Mapping[str, Measured]) -> Table:
    rows = []
    for name, each in measured.items():
        theirs = THEIRS.get(name)
        rows.append(
            Row(
                name,
                [
                    f"{theirs.calls}" if theirs else "–",
                    f"{theirs.total_ms:,.0f} ms" if theirs else "–",
                    f"{each.calls}",
                    f"{each.median_ms:,.1f} ms",
                    f"{each.least_ms:,.1f} ms",
                    f"{len(each.runs)}",
                ],
            )
        )
    return Table(
        f"{REQUESTS} requests, a backend of {ways.LOAD_S * 1e3:g} ms: the Go write-up's | ours",
        ["calls", "time", "calls here", "median", "least", "runs"],
        rows,
    )


def _calls_chart(measured: Mapping[str, Measured]) -> Chart:
    svg = bar_chart(
        "Backend calls by approach, published and measured",
        list(measured),
        [
            Bars("published", [THEIRS[name].calls if name in THEIRS else None for name in measured], "amber"),
            Bars("measured", [each.calls for each in measured.values()], "blue"),
        ],
        Axis("backend calls"),
        lambda value: f"{value:,.0f}",
    )
    return Chart("Backend calls", svg)


def _time_chart(measured: Mapping[str, Measured]) -> Chart:
    svg = bar_chart(
        "Time until all are answered by approach, published and measured",
        list(measured),
        [
            Bars("published", [THEIRS[name].total_ms if name in THEIRS else None for name in measured], "amber"),
            Bars("measured, median", [each.median_ms for each in measured.values()], "blue"),
        ],
        Axis("time until all are answered (ms)"),
        lambda value: f"{value:,.0f} ms",
    )
    return Chart("Time", svg)


APPROACHES = Experiment(
    "approaches",
    "A hundred requests ask at once for what takes 50 ms: how many reach the backend, and when are all answered?",
    run,
)
