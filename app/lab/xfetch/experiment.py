"""`xfetch`: theory beside simulation, then beside the read path, then beside what Internet Archive measured."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from app.lab.experiment import Experiment, Options
from app.lab.result import Result, Verdict, held
from app.lab.xfetch import comparison, theory
from app.lab.xfetch.decisions import CONFIDENCE, Cell, Estimate, simulate
from app.lab.xfetch.read_path import Refreshes, read_through, shape
from app.report.charts import Axis, Series, xy_chart
from app.report.html import Chart
from app.report.svg import PALETTE
from app.report.table import Row, Table

BETAS = (0.5, 1.0, 2.0, 4.0)
RATES = (10.0, 100.0, 1000.0)
"""rδ: reads in the time of a load."""
BAR = 0.05
PROCESSES = 4
CONTRAST_RATE, CONTRAST_REFRESHES = 100.0, 20


@dataclass(frozen=True, slots=True)
class _Effort:
    """Refreshes a cell: of the decision alone, and by rate of the whole read path, in which every read is made."""

    refreshes: int
    through: Mapping[float, int]
    archive: comparison.Effort


QUICK = _Effort(40_000, {10.0: 50, 100.0: 10, 1000.0: 1}, comparison.Effort(seeds=1, share=0.25))
FULL = _Effort(200_000, {10.0: 500, 100.0: 100, 1000.0: 20}, comparison.Effort(seeds=3, share=1.0))


_NOTES = (
    (
        "r is the rate of reads, δ the time of a load. All three tables come from the cache's own decision "
        "(app/cache/freshness.py) in virtual time."
    ),
    (
        "Below rβδ = 50 a refresh may run into the expiry, from where on its reads come no faster than r: fewer loads "
        "than the formula says, as the first rows show. The bar does not apply there."
    ),
)


def run(options: Options) -> Result:
    effort = QUICK if options.quick else FULL
    cells = _cells(effort.refreshes, options)
    paths = _paths(effort.through, options)
    contrasts = _contrasts(options)
    archive = comparison.compare(effort.archive, options)
    worst, off_by = _worst(cells)
    half = max(
        estimate.within / expected
        for key in cells
        if _is_bound(*key)
        for _, expected, estimate in _figures(key, cells[key])
    )
    verdicts = [
        held(
            f"every simulated figure where rβδ ≥ {theory.VALID_FROM:g}",
            "e^(1/β), e^(−1/β), ln 0.01 / ln(1 − p), β(ln rβδ + γ)",
            f"within {off_by:.2%}: {worst}",
            f"≤ {BAR:.0%}",
            off_by <= BAR,
            f"Of {effort.refreshes:,} refreshes a cell, the {CONFIDENCE:.0%} interval of every such figure is within "
            f"±{half:.1%} of theory. "
            "The 99th percentile is held to as a real number: as counts, 10 and 11 are 9 % apart.",
        ),
        *_path_verdicts(paths),
        *_contrast_verdicts(contrasts),
        *archive.verdicts,
    ]
    return Result(
        [_theory_table(cells), _path_table(paths), archive.table],
        {"loads": _loads_chart(cells, paths), "gap": _gap_chart(cells), "archive": archive.chart},
        verdicts,
        {
            "decisions": [
                {"beta": beta, "rate": rate, "theory": _by_theory(beta, rate), "measured": asdict(cell)}
                for (beta, rate), cell in cells.items()
            ],
            "read_path": [
                {"protection": name, "beta": beta, "rate": rate, **_as_json(seen)}
                for (name, beta, rate), seen in paths.items()
            ],
            "contrasts": {name: _as_json(seen) for name, seen in contrasts.items()},
            "archive": archive.figures,
        },
        [
            *_NOTES,
            *archive.notes,
        ],
    )


def _cells(refreshes: int, options: Options) -> Mapping[tuple[float, float], Cell]:
    cells = {}
    for place, (rate, beta) in enumerate((rate, beta) for rate in RATES for beta in BETAS):
        options.progress(0.4 * place / 12, f"decisions: {refreshes:,} refreshes at rδ = {rate:g}, β = {beta:g}")
        cells[beta, rate] = simulate(beta, rate, refreshes, random.Random(f"{options.seed} {place}"))
    return cells


_FLIGHT, _LEASE = "singleflight", "with the lease"
_NONE = "nothing early, nothing shared"
_ALONE = f"singleflight alone, {PROCESSES} processes"

_Paths = Mapping[tuple[str, float, float], Refreshes]
"""By protection, β and rate."""


def _paths(refreshes: Mapping[float, int], options: Options) -> _Paths:
    """The read path of one process, and of several that share Redis and its leases."""
    paths = {}
    for place, (rate, beta) in enumerate((rate, beta) for rate in RATES for beta in BETAS):
        options.progress(0.4 + 0.2 * place / 12, f"read path: rδ = {rate:g}, β = {beta:g}")
        for name, processes in ((_FLIGHT, 1), (_LEASE, PROCESSES)):
            paths[name, beta, rate] = read_through(
                shape(beta, lease=name == _LEASE), rate, refreshes[rate], processes=processes, seed=options.seed
            )
    return paths


def _contrasts(options: Options) -> Mapping[str, Refreshes]:
    """What it is like without the one or the other."""
    options.progress(0.6, f"read path: {_NONE}")

    def seen(beta: float) -> Refreshes:
        shape_ = shape(beta, lease=False)
        return read_through(shape_, CONTRAST_RATE, CONTRAST_REFRESHES, processes=PROCESSES, seed=options.seed)

    return {_NONE: seen(0.0), _ALONE: seen(1.0)}


def _as_json(seen: Refreshes) -> dict[str, float]:
    return {
        "refreshes": len(seen.loads),
        "mean": _mean(seen.loads),
        "most": max(seen.loads),
        "gap": _mean(seen.gaps),
        "waited": seen.waited,
        "reads": seen.reads,
    }


def _by_theory(beta: float, rate: float) -> dict[str, float]:
    return {
        "mean": theory.mean_loads(beta),
        "one": theory.chance_of_one(beta),
        "p99": theory.p99_loads(beta),
        "gap": theory.mean_gap(beta, rate),
    }


def _figures(key: tuple[float, float], cell: Cell) -> list[tuple[str, float, Estimate]]:
    """Each figure of a cell: its name, by theory, measured."""
    expected = _by_theory(*key)
    measured = {"mean": cell.mean, "one": cell.one, "p99": cell.p99, "gap": cell.gap}
    return [(name, expected[name], measured[name]) for name in expected]


def _is_bound(beta: float, rate: float) -> bool:
    return rate * beta >= theory.VALID_FROM


def _worst(cells: Mapping[tuple[float, float], Cell]) -> tuple[str, float]:
    """Of the figures that are held to theory, the one furthest off, and by which share of it."""
    names = {"mean": "mean loads", "one": "P(1)", "p99": "p99", "gap": "gap"}
    off_by, which = max(
        (abs(estimate.value / expected - 1), f"{names[name]} at rδ = {key[1]:g}, β = {key[0]:g}")
        for key, cell in cells.items()
        if _is_bound(*key)
        for name, expected, estimate in _figures(key, cell)
    )
    return which, off_by


def _path_verdicts(paths: _Paths) -> list[Verdict]:
    verdicts = []
    for protection, of in ((_FLIGHT, "1 process"), (_LEASE, f"{PROCESSES} processes")):
        loads = [count for (name, _, _), seen in paths.items() if name == protection for count in seen.loads]
        verdicts.append(
            held(
                f"loads a refresh through the read path, {protection}, {of}",
                "1",
                f"{sum(loads) / len(loads):g} in {len(loads):,} refreshes, at most {max(loads)}",
                "1 exactly",
                set(loads) == {1},
            )
        )
    return verdicts


def _contrast_verdicts(contrasts: Mapping[str, Refreshes]) -> list[Verdict]:
    none, alone = contrasts[_NONE].loads, contrasts[_ALONE].loads
    expected = theory.unprotected(CONTRAST_RATE)
    room = 4 * (CONTRAST_RATE / len(none)) ** 0.5
    return [
        held(
            f"loads an expiry at rδ = {CONTRAST_RATE:g}, {_NONE}",
            f"1 + rδ = {expected:g}",
            f"{_mean(none):.1f}",
            f"{expected:g} ± {room:.1f}",
            abs(_mean(none) - expected) <= room,
            f"Four standard deviations of the mean of {len(none)} Poisson numbers: the reads during the first load.",
        ),
        held(
            f"loads a refresh at β = 1, {_ALONE}",
            "as uncoordinated as they are many",
            f"{_mean(alone):.2f}",
            f"≤ {PROCESSES}",
            max(alone) <= PROCESSES,
        ),
    ]


def _theory_table(cells: Mapping[tuple[float, float], Cell]) -> Table:
    def shown(estimate: Estimate, digits: int) -> str:
        return f"{estimate.value:.{digits}f} ± {estimate.within:.{digits}f}"

    rows = []
    for (beta, rate), cell in cells.items():
        by = _by_theory(beta, rate)
        mark = "" if _is_bound(beta, rate) else " *"
        rows.append(
            Row(
                f"rδ = {rate:g}, β = {beta:g}{mark}",
                [
                    f"{by['mean']:.2f}",
                    shown(cell.mean, 2),
                    f"{by['one']:.3f}",
                    shown(cell.one, 3),
                    f"{by['p99']:.2f}",
                    shown(cell.p99, 2),
                    f"{by['gap']:.2f}",
                    shown(cell.gap, 2),
                ],
            )
        )
    return Table(
        f"Loads a refresh, uncoordinated: theory | simulated ± {CONFIDENCE:.0%} interval (*: rβδ < 50, no bar)",
        ["mean", "simulated", "P(1)", "simulated", "p99", "simulated", "gap/δ", "simulated"],
        rows,
    )


def _path_table(paths: _Paths) -> Table:
    rows = []
    for rate in RATES:
        for beta in BETAS:
            flight, lease = paths[_FLIGHT, beta, rate], paths[_LEASE, beta, rate]
            cells = [f"{len(flight.loads):,}", f"{theory.mean_gap(beta, rate):.2f}"]
            for seen in (flight, lease):
                cells += [f"{_mean(seen.loads):.2f}", f"{max(seen.loads)}", f"{_mean(seen.gaps):.2f}"]
            rows.append(Row(f"rδ = {rate:g}, β = {beta:g}", cells))
    return Table(
        f"Loads a refresh through the whole read path: singleflight, 1 process | and the lease, {PROCESSES} processes",
        ["refreshes", "gap/δ, theory", _FLIGHT, "most", "gap/δ", _LEASE, "most", "gap/δ"],
        rows,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _loads_chart(cells: Mapping[tuple[float, float], Cell], paths: _Paths) -> Chart:
    curve = [0.5 * 2 ** (n / 20) for n in range(61)]
    series = [Series("e^(1/β)", [(beta, theory.mean_loads(beta)) for beta in curve], "blue")]
    for rate, color in zip(RATES, ("amber", "vermilion", "purple"), strict=True):
        points = [(beta, cells[beta, rate].mean.value) for beta in BETAS]
        series.append(Series(f"rδ = {rate:g}", points, color, "points"))
    behind = [(beta, _mean(paths[_LEASE, beta, 100.0].loads)) for beta in BETAS]
    series.append(Series("through the read path", behind, "green"))
    svg = xy_chart(
        "Mean loads a refresh by β: theory, simulated, and through the read path",
        series,
        Axis("β (logarithmic)", log=True, low=0.5, high=5),
        Axis("loads a refresh", low=0, high=8),
    )
    return Chart(
        "Loads a refresh",
        svg,
        "Line: theory. Points: the decision alone, simulated. Broken line: behind flight and lease.",
    )


def _gap_chart(cells: Mapping[tuple[float, float], Cell]) -> Chart:
    rates = [10.0 * 10 ** (n / 20) for n in range(41)]
    series = []
    for beta, color in zip(BETAS, PALETTE, strict=False):
        line = [(rate, theory.mean_gap(beta, rate)) for rate in rates]
        series.append(Series(f"β = {beta:g}", line, color))
    for beta, color in zip(BETAS, PALETTE, strict=False):
        series.append(Series("", [(rate, cells[beta, rate].gap.value) for rate in RATES], color, "points"))
    svg = xy_chart(
        "How long before the expiry a refresh begins, by rate and β",
        series,
        Axis("rδ: reads in the time of a load (logarithmic)", log=True, low=10, high=1000),
        Axis("gap before the expiry, in δ", low=0),
    )
    return Chart("How early a refresh begins", svg, "Lines: β(ln rβδ + γ). Points: simulated.")


XFETCH = Experiment(
    "xfetch",
    "How many loads does a refresh take when every read decides for itself, and how many behind flight and lease?",
    run,
)
