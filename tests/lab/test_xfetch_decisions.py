from __future__ import annotations

import random
from statistics import fmean

import pytest

from app.cache.freshness import wants_early_refresh
from app.lab.xfetch import theory
from app.lab.xfetch.decisions import simulate


def _refresh_by_every_read(beta: float, rate: float, draws: random.Random) -> tuple[int, float]:
    """As the simulation, with no read left out."""
    at, loads, began = -40.0 * beta, 0, float("inf")
    while True:
        at += draws.expovariate(rate)
        if at >= began + 1.0:
            return loads, -began
        if wants_early_refresh(at, 0.0, 1.0, beta, 1.0 - draws.random()):
            loads += 1
            began = min(began, at)


@pytest.mark.parametrize(("beta", "rate"), [(0.5, 10.0), (1.0, 20.0), (2.0, 3.0)])
def test_leaving_out_reads_that_could_not_have_loaded_changes_no_distribution(beta: float, rate: float) -> None:
    draws = random.Random(3)
    whole = [_refresh_by_every_read(beta, rate, draws) for _ in range(1_500)]
    cell = simulate(beta, rate, 30_000, draws)
    sqrt20 = 20**0.5  # twenty times the refreshes, so that the whole's own interval is so much wider
    assert fmean(loads for loads, _ in whole) == pytest.approx(cell.mean.value, abs=2.5 * sqrt20 * cell.mean.within)
    assert fmean(gap for _, gap in whole) == pytest.approx(cell.gap.value, abs=2.5 * sqrt20 * cell.gap.within)
    ones = fmean(loads == 1 for loads, _ in whole)
    assert ones == pytest.approx(cell.one.value, abs=2.5 * sqrt20 * cell.one.within)


@pytest.mark.parametrize(("beta", "rate"), [(0.5, 100.0), (1.0, 1000.0), (4.0, 100.0)])
def test_uncoordinated_refreshes_are_what_theory_says(beta: float, rate: float) -> None:
    cell = simulate(beta, rate, 40_000, random.Random(11))
    assert cell.mean.value == pytest.approx(theory.mean_loads(beta), rel=0.05)
    assert cell.one.value == pytest.approx(theory.chance_of_one(beta), rel=0.05)
    assert cell.p99.value == pytest.approx(theory.p99_loads(beta), rel=0.05)
    assert cell.gap.value == pytest.approx(theory.mean_gap(beta, rate), rel=0.05)
    assert cell.p99.within / cell.p99.value < 0.03, "the interval is well inside the bar"


def test_where_reads_are_few_the_expiry_ends_the_crowd_and_there_are_fewer_loads() -> None:
    """rβδ = 5: the formula doesn't hold, which is why the bar begins at 50."""
    assert simulate(0.5, 10.0, 5_000, random.Random(1)).mean.value < 0.85 * theory.mean_loads(0.5)


def test_a_seed_gives_the_same_figures_and_another_one_others() -> None:
    cells = [simulate(1.0, 100.0, 500, random.Random(seed)) for seed in (1, 1, 2)]
    assert cells[0] == cells[1] != cells[2]
