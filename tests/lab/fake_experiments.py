"""Experiments whose outcome a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.lab.experiment import Experiment, Options
from app.lab.result import Result, Verdict, held, not_reproduced
from app.report.charts import Axis, Bars, bar_chart
from app.report.html import Chart
from app.report.table import Row, Table


def holds() -> Verdict:
    return held("one load", "1", "1 load", "1", ok=True)


def broken() -> Verdict:
    return held("one load", "1", "2 loads", "1", ok=False)


def lost() -> Verdict:
    return not_reproduced("the mutex row", "5,000 ms", "51 ms", "nobody waits for what is cached")


def result(verdicts: Sequence[Verdict], value: int = 7) -> Result:
    svg = bar_chart("Loads", ["plain"], [Bars("loads", [value])], Axis("loads"))
    table = Table("Loads by strategy", ["loads"], [Row("plain", [f"{value}"])])
    return Result([table], {"loads": Chart("Loads", svg)}, verdicts, {"loads": value}, ["Counted by hand."])


def experiment(
    name: str = "counting", verdicts: Sequence[Verdict] = (), run: Callable[[Options], Result] | None = None
) -> Experiment:
    outcome = result(verdicts or [holds()])
    return Experiment(name, f"How many loads does {name} take?", run or (lambda _: outcome))
