"""Internet Archive's four strategies, theirs beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from app.lab.experiment import Options
from app.lab.result import Standing, Verdict, held
from app.lab.xfetch.archive import FORK_S, LOAD_S, PAUSES_MS, STRATEGIES, THEIRS, TTL_S, WORKERS, Sample, play
from app.lab.xfetch.theory import mean_loads
from app.report.charts import Axis, Bars, bar_chart
from app.report.html import Chart
from app.report.table import Row, Table

BY_SECONDS = "xfetch by whole seconds"


@dataclass(frozen=True, slots=True)
class Effort:
    """How many runs of each strategy, and which share of the length of theirs."""

    seeds: int
    share: float


@dataclass(frozen=True, slots=True)
class Comparison:
    table: Table
    chart: Chart
    verdicts: Sequence[Verdict]
    figures: Mapping[str, object]
    notes: Sequence[str]


def compare(effort: Effort, options: Options) -> Comparison:
    ours: dict[str, list[Sample]] = {}
    for place, (name, strategy) in enumerate(STRATEGIES.items()):
        options.progress(0.65 + 0.07 * place, f"Internet Archive's comparison: {name}")
        seconds = _theirs(name).seconds * effort.share
        ours[name] = [play(strategy, seconds, seed) for seed in range(options.seed, options.seed + effort.seeds)]
    return Comparison(
        _table(ours),
        _chart(ours),
        [*_must_hold(ours), *_beside_theirs(ours)],
        {
            name: {"theirs": asdict(_theirs(name)), "ours": [asdict(sample) for sample in samples]}
            for name, samples in ours.items()
        },
        _NOTES,
    )


_NOTES = (
    (
        f"Internet Archive's harness: {WORKERS} workers, each reading once after {PAUSES_MS[0]}–{PAUSES_MS[1]:,} ms; "
        f"TTL {TTL_S:g} s, load {LOAD_S * 1e3:g} ms, β = 1 (github.com/internetarchive/xfetch, samples, 2017). "
        "Theirs are single runs of PHP processes on Redis, ours are in virtual time."
    ),
    (
        "Their xfetch asks Redis for the TTL in whole seconds, so its chances rise in steps of a second; the row "
        f"“{BY_SECONDS}” does as they do, “xfetch” decides by the entry's own date."
    ),
    "A life counts from the beginning of the load here, and from its end there: 20 s from load to load, and 20.5 s.",
)


def plain_loads_a_life() -> float:
    """What `plain` takes by derivation: who finds the value gone, and each other worker whose turn comes meanwhile.

    A worker's turns are F + U apart, F the fork and U uniform over the pauses. Seen from any moment, its next turn
    comes within x with probability ∫₀ˣ (1 − P(F + U ≤ t)) dt / E(F + U), the residual life of a renewal process.
    """
    low, high = (FORK_S + pause / 1_000 for pause in PAUSES_MS)
    within = low + (LOAD_S - low) - (LOAD_S - low) ** 2 / (2 * (high - low))
    return 1 + (WORKERS - 1) * within / ((low + high) / 2)


def _theirs(name: str) -> Sample:
    return THEIRS["xfetch" if name == BY_SECONDS else name]


def _a_minute(samples: Sequence[Sample]) -> float:
    return 60 * sum(sample.loads for sample in samples) / sum(sample.seconds for sample in samples)


def _must_hold(ours: Mapping[str, Sequence[Sample]]) -> list[Verdict]:
    lives = sum(sample.seconds / (TTL_S + LOAD_S) for sample in ours["plain"])
    plain = sum(sample.loads for sample in ours["plain"]) / lives
    expected = plain_loads_a_life()
    # A run begins and ends within a life, so it has one more or less of them than its length says.
    room = expected * len(ours["plain"]) / lives + 4 * math.sqrt(expected / lives)
    locked, both = ours["locked"], ours["both"]
    most_locked = sum(math.floor(sample.seconds / TTL_S) + 1 for sample in locked)
    locked_loads = sum(sample.loads for sample in locked)
    missed = sum(sample.misses for sample in both)
    return [
        held(
            "plain: loads a life",
            f"{expected:.1f}, derived",
            f"{plain:.1f}",
            f"± {room:.1f}",
            abs(plain - expected) <= room,
            f"One life more or less in {lives:.0f}, and four standard deviations.",
        ),
        held(
            "locked: one load a life",
            f"≤ {most_locked}",
            f"{locked_loads}",
            "lives begun",
            locked_loads <= most_locked,
        ),
        held("both: reads that found nothing", "0", f"{missed}", "0", missed == 0),
    ]


def _beside_theirs(ours: Mapping[str, Sequence[Sample]]) -> list[Verdict]:
    """Their counts, and what ours come to in the time of theirs: `HOLDS` where chance explains the difference."""
    plain = plain_loads_a_life()
    crowd = WORKERS - 1
    a_life = {  # loads, and their variance: binomial, none, geometric
        "plain": (plain, (plain - 1) * (1 - (plain - 1) / crowd)),
        "locked": (1.0, 0.0),
        BY_SECONDS: (mean_loads(1.0), mean_loads(1.0) * (mean_loads(1.0) - 1)),
        "both": (1.0, 0.0),
    }
    verdicts = []
    for name, (loads, variance) in a_life.items():
        theirs = _theirs(name)
        longer = theirs.seconds / sum(sample.seconds for sample in ours[name])
        # Either begins and ends within a life, and has one more or less of them than its length says.
        spread = loads * (1 + longer) + 3 * math.sqrt(variance * theirs.seconds / TTL_S * (1 + longer))
        expected = _a_minute(ours[name]) * theirs.seconds / 60
        is_chance = abs(theirs.loads - expected) <= spread
        verdicts.append(
            Verdict(
                f"{name}: Internet Archive's loads in {theirs.seconds:g} s",
                f"{theirs.loads}",
                f"{expected:.0f}",
                f"± {spread:.0f}",
                Standing.HOLDS if is_chance else Standing.NOT_REPRODUCED,
                "" if is_chance else "Chance explains less than that; what else differs is not known.",
            )
        )
    return verdicts


def _table(ours: Mapping[str, Sequence[Sample]]) -> Table:
    def rate(count: int, seconds: float) -> str:
        return f"{60 * count / seconds:.1f}"

    rows = []
    for name, samples in ours.items():
        theirs = _theirs(name)
        seconds = sum(sample.seconds for sample in samples)
        rows.append(
            Row(
                name,
                [
                    f"{theirs.loads} in {theirs.seconds:g} s",
                    f"{sum(sample.loads for sample in samples)} in {seconds:g} s",
                    rate(theirs.loads, theirs.seconds),
                    f"{_a_minute(samples):.1f}",
                    rate(theirs.misses, theirs.seconds),
                    rate(sum(sample.misses for sample in samples), seconds),
                    rate(theirs.contended, theirs.seconds),
                    rate(sum(sample.contended for sample in samples), seconds),
                ],
            )
        )
    return Table(
        "Internet Archive's four strategies: theirs | ours; the last six are a minute",
        ["loads", "ours", "loads/min", "ours", "misses", "ours", "contended", "ours"],
        rows,
    )


def _chart(ours: Mapping[str, Sequence[Sample]]) -> Chart:
    names = list(ours)
    svg = bar_chart(
        "Loads a minute by strategy, Internet Archive's and ours",
        names,
        [
            Bars("Internet Archive", [60 * _theirs(n).loads / _theirs(n).seconds for n in names], "amber"),
            Bars("here", [_a_minute(ours[n]) for n in names], "blue"),
        ],
        Axis("loads a minute"),
        lambda value: f"{value:.1f}",
    )
    return Chart("Internet Archive's comparison", svg, "The least possible is 3 a minute: one in each life of 20 s.")
