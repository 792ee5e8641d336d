"""An outcome as lines and a table on the console, and as a page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from app.loadtest.latency import percentile
from app.report import charts
from app.report.charts import Axis, Series, xy_chart
from app.report.html import Block, Chart, Commands, Facts, Highlight, Highlights, Page, Paragraph, Section, render
from app.report.machine import machine
from app.report.table import Row, Table, count, milliseconds
from app.scenarios.run import Outcome
from app.scenarios.timeline import BREAKER_STATES, Mark, Second

SOURCES = ("l1", "l2", "origin", "shared", "stale")
SOURCE_COLORS = {"l1": "sky", "l2": "green", "origin": "vermilion", "shared": "blue", "stale": "purple"}
KEPT, BROKEN = "kept", "BROKEN"

HEADING = (
    f"{'s':>5}  {'phase':<18}{'requests':>9}{'failed':>8}{'loads':>7}  {'p50':>9}{'p99':>10}  "
    "answered from; breakers not closed"
)


def line(news: Second | Mark) -> str:
    """One second, or one mark, as a line of the console's timeline."""
    if isinstance(news, Mark):
        return f"{news.at:5.1f}  ── {news.label}"
    sources = ", ".join(f"{source} {news.sources[source]:,}" for source in SOURCES if news.sources.get(source))
    states = ", ".join(f"{name} {BREAKER_STATES[state]}" for name, state in news.breakers.items() if state)
    loads = "–" if news.loads is None else f"{news.loads:,}"
    return (
        f"{news.at:5.1f}  {news.phase:<18}{news.requests:>9,}{news.failed:>8,}{loads:>7}  "
        f"{milliseconds(news.p50_ms):>9}{milliseconds(news.p99_ms):>10}  {sources}{'; ' if states else ''}{states}"
    )


def verdict_table(outcome: Outcome) -> RichTable:
    """The verdict on the console."""
    table = RichTable(title=Text(_headline(outcome)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("promise", overflow="fold")
    for heading in ("bar", "measured", ""):
        table.add_column(heading, justify="right", overflow="fold")
    for each in outcome.verdict.promises:
        style = None if each.ok else "bold red"
        table.add_row(Text(each.what), Text(each.bar), Text(each.measured), KEPT if each.ok else BROKEN, style=style)
    table.caption = Text(f"the load generator itself was late by: {_lateness(outcome)}")
    table.caption_justify = "left"
    return table


def html(outcome: Outcome, command: Sequence[str]) -> str:
    """A page about it; `command` repeats it."""
    verdict, timeline, options = outcome.verdict, outcome.timeline, outcome.options
    kept = sum(each.ok for each in verdict.promises)
    failed = sum(bool(answer.error) for answer in timeline.answers)
    opening = Highlights(
        [
            Highlight(f"{kept} of {len(verdict.promises)}", "promises kept"),
            Highlight(count(len(timeline.answers)), "requests", f"{options.rate:g} a second, whatever the answers"),
            Highlight(count(failed), "failed", "of all, the break included"),
        ]
    )
    promises = Table(
        "",
        ["bar", "measured", "verdict"],
        [
            Row(each.what, [each.bar, each.measured, KEPT if each.ok else BROKEN], strong=not each.ok)
            for each in verdict.promises
        ],
    )
    facts = [
        ("Load", f"{options.rate:g} requests a second on {options.keys} keys, open loop"),
        ("Fleet", f"{options.replicas} replicas, {outcome.fleet}"),
        ("Sent late", _lateness(outcome)),
        ("Settings", ", ".join(f"{k}={v}" for k, v in sorted(_settings(outcome).items()))),
        ("Began", f"{outcome.began:%Y-%m-%d %H:%M:%S} UTC"),
        *machine(),
    ]
    return render(
        Page(
            f"Scenario {verdict.scenario}",
            outcome.scenario.breaks,
            [
                Section("Promises", [promises, Paragraph(_NOTE)]),
                Section("What happened", _charts(outcome)),
                Section("What was run", [Facts(facts)]),
                Section("Run it again", [Commands([shlex.join(command)])]),
            ],
            [opening],
        )
    )


_NOTE = (
    "Latency counts from the moment at which a request was to be sent, whether or not earlier ones had been answered. "
    "Loads are counted by PostgreSQL's own statistics."
)


def _settings(outcome: Outcome) -> dict[str, str]:
    return {**outcome.scenario.settings(outcome.options), **outcome.options.settings}


def _lateness(outcome: Outcome) -> str:
    """How late the load generator itself was, which is in every latency: a sign of a machine that is too busy."""
    late = sorted(max(0.0, answer.sent - answer.due) * 1e3 for answer in outcome.timeline.answers)
    if not late:
        return "–"
    return f"p99 {milliseconds(percentile(late, 0.99))}, at most {milliseconds(late[-1])}"


def _headline(outcome: Outcome) -> str:
    broken = sum(not each.ok for each in outcome.verdict.promises)
    if not broken:
        return f"{outcome.verdict.scenario}: all promises kept"
    return f"{outcome.verdict.scenario}: {broken} of {len(outcome.verdict.promises)} promises broken"


def _charts(outcome: Outcome) -> list[Block]:
    timeline = outcome.timeline
    seconds = timeline.seconds
    # A second's figures are those of the time up to its end.
    begins = [0.0, *(second.at for second in seconds)]
    middles = [(begin + second.at) / 2 for begin, second in zip(begins, seconds, strict=False)]
    marks = [charts.Mark(mark.at, mark.label) for mark in timeline.marks]
    end = max((second.at for second in seconds), default=1.0)
    across = Axis("time (s)", low=0, high=end)
    good = [answer for answer in timeline.answers if not answer.error]
    dots = {
        source: [(a.due - timeline.began, a.seconds * 1e3) for a in good if a.source == source] for source in SOURCES
    }
    latency = xy_chart(
        "Latency of each answer over time, by where it came from",
        [Series(source, sorted(points), SOURCE_COLORS[source], "dots") for source, points in dots.items() if points],
        across,
        Axis("latency (ms, logarithmic)", log=True),
        marks=marks,
    )
    answered = xy_chart(
        "Answers a second over time, by where they came from, and failures",
        [
            *(
                Series(
                    source,
                    [(at, s.sources.get(source, 0)) for at, s in zip(middles, seconds, strict=True)],
                    SOURCE_COLORS[source],
                )
                for source in SOURCES
                if any(s.sources.get(source) for s in seconds)
            ),
            Series("failed", [(at, s.failed) for at, s in zip(middles, seconds, strict=True)], "amber"),
        ],
        across,
        Axis("answers a second", low=0),
        marks=marks,
    )
    known = [(at, float(s.loads)) for at, s in zip(middles, seconds, strict=True) if s.loads is not None]
    loads = xy_chart(
        "Database loads a second over time",
        [Series("database loads", known, "vermilion")],
        across,
        Axis("loads a second", low=0),
        height=180,
        marks=marks,
    )
    return [
        Chart("Latency", latency, "A dot is an answer; crowds are thinned out evenly."),
        Chart("Answers", answered),
        Chart("Database loads", loads, "By PostgreSQL's statistics; nothing is drawn where it could not be asked."),
    ]
