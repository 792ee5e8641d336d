"""What a benchmark says: a value, the baseline it was taken beside, and the bar it should hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple


class BenchError(Exception):
    """A figure could not be taken, or would not be what its name says; the message is one line."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure in one run. `QUICK` is for trying out the benchmark, not for figures."""

    load_s: float
    warm_up_s: float
    calls: int
    requests: int


FULL = Effort(load_s=2.0, warm_up_s=1.0, calls=5_000, requests=100_000)
QUICK = Effort(load_s=0.3, warm_up_s=0.1, calls=500, requests=2_000)


class Run(NamedTuple):
    """One run's value and the baseline taken beside it, in the figure's unit.

    `sound` is what the bar asks besides the value, such as the number of calls.
    """

    value: float
    baseline: float
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured: `baseline` in words, and where there is a bar, the highest value and what else it asks.

    The bar may be on the ratio of value and baseline, too.
    """

    name: str
    unit: str
    baseline: str
    at_most: float | None = None
    and_also: str = ""
    ratio_at_most: float | None = None

    @property
    def bar(self) -> str:
        """The bar in words; empty where there is none."""
        asked = [] if self.at_most is None else [f"≤ {self.at_most:g} {self.unit}"]
        asked += [] if self.ratio_at_most is None else [f"≤ {self.ratio_at_most:g} × the baseline"]
        return ", ".join([*asked, self.and_also] if self.and_also else asked)


@dataclass(frozen=True, slots=True)
class Subject:
    """Figures that are taken together: one `measure` is one run of each, by name."""

    figures: Sequence[Figure]
    measure: Callable[[Effort], Mapping[str, Run]]
    missing: str = ""
    """What this machine lacks to take them: they are left out then, unless they are asked for by name."""


@dataclass(frozen=True, slots=True)
class Result:
    """A figure and its runs."""

    figure: Figure
    runs: Sequence[Run]

    @property
    def value(self) -> float:
        """The runs' median."""
        return median(run.value for run in self.runs)

    @property
    def baseline(self) -> float:
        """The median of the runs' baselines."""
        return median(run.baseline for run in self.runs)

    @property
    def ratio(self) -> float:
        """The median of the runs' own ratios, value to baseline."""
        return median(run.value / run.baseline for run in self.runs)

    @property
    def holds(self) -> bool:
        """Whether the bar is held; true where there is none."""
        limit, ratio_limit = self.figure.at_most, self.figure.ratio_at_most
        return (
            (limit is None or self.value <= limit)
            and (ratio_limit is None or self.ratio <= ratio_limit)
            and all(run.sound for run in self.runs)
        )

    def document(self) -> dict[str, str | float]:
        """The figure as JSON carries it."""
        return {
            "name": self.figure.name,
            "value": _rounded(self.value),
            "unit": self.figure.unit,
            "baseline": _rounded(self.baseline),
            "ratio": _rounded(self.ratio),
        }


def _rounded(value: float) -> float:
    """Four significant digits: more than any of these figures repeats to."""
    return float(f"{value:.4g}")
