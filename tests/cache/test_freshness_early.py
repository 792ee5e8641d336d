"""Early refresh by XFetch: its edges, and its arithmetic against the paper's."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.freshness import LONGEST_LEAD, wants_early_refresh

EXPIRES = 1_000.0
LEAST = 2.0**-53
"""The least draw there is, `1 - random.random()` at its least."""


def wants(before_s: float, *, cost_s: float = 1.0, beta: float = 1.0, draw: float = 0.5) -> bool:
    """Whether a read so long before the expiry wants it."""
    return wants_early_refresh(EXPIRES - before_s, EXPIRES, cost_s, beta, draw)


def test_the_decision_is_the_formula_equality_included() -> None:
    lead_s = -math.log(0.5)
    assert not wants(lead_s + 0.001)
    assert wants(lead_s - 0.001)
    assert wants_early_refresh(-0.0, -math.log(0.25) * 2.0 * 3.0, 2.0, 3.0, 0.25)


def test_at_the_expiry_every_draw_wants_it() -> None:
    assert wants(0.0, draw=1.0)
    assert not wants(0.001, draw=1.0)


@given(st.floats(-1e6, 1e6), st.floats(LEAST, 1))
def test_beta_of_nought_never_does(before_s: float, draw: float) -> None:
    assert not wants(before_s, beta=0.0, draw=draw)


@pytest.mark.parametrize("cost_s", [0.0, -0.001, -1e9])
def test_a_cost_that_is_not_positive_never_does(cost_s: float) -> None:
    """A value that was written was not loaded; and a clock set back during a load makes its cost negative."""
    assert not wants(0.001, cost_s=cost_s, draw=LEAST)


def test_a_draw_of_nought_has_no_logarithm_and_counts_as_the_least() -> None:
    assert wants(LONGEST_LEAD - 0.001, draw=0.0)
    assert not wants(LONGEST_LEAD + 0.001, draw=0.0)


def test_no_draw_reaches_further_ahead_than_is_looked() -> None:
    assert -math.log(LEAST) < LONGEST_LEAD
    assert wants(-math.log(LEAST) - 0.001, draw=LEAST)


def test_a_clock_set_back_takes_the_window_along() -> None:
    assert wants(0.5)
    assert not wants(0.5 + 3600)


@given(st.floats(0, 40), st.floats(0.001, 5), st.floats(0.1, 5), st.floats(LEAST, 1), st.floats(0, 40))
def test_who_wants_it_wants_it_later_too_and_the_dearer_the_load_the_earlier(
    before_s: float, cost_s: float, beta: float, draw: float, later_s: float
) -> None:
    if wants(before_s, cost_s=cost_s, beta=beta, draw=draw):
        assert wants(before_s - later_s, cost_s=cost_s, beta=beta, draw=draw)
        assert wants(before_s, cost_s=cost_s * 1.001, beta=beta, draw=draw)


@pytest.mark.parametrize(
    ("beta", "mean_loads", "one_load", "gap"), [(1.0, 2.72, 0.368, 5.18), (2.0, 1.65, 0.607, 11.75)]
)
def test_unprotected_it_loads_as_often_and_as_early_as_the_paper_says(
    beta: float, mean_loads: float, one_load: float, gap: float
) -> None:
    """Poisson reads at 100 a load's time; each that wants it, while the first load runs, loads as well."""
    draws = random.Random(1)
    rate, rounds = 100.0, 1_000
    loads, gaps = [], []
    for _ in range(rounds):
        now, first, count = EXPIRES - gap - 10 * beta, math.inf, 0
        while True:
            now += draws.expovariate(rate)
            if now >= first + 1.0:
                break
            if now >= EXPIRES or wants_early_refresh(now, EXPIRES, 1.0, beta, 1.0 - draws.random()):
                first = min(first, now)
                count += 1
        loads.append(count)
        gaps.append(EXPIRES - first)
    assert statistics.fmean(loads) == pytest.approx(mean_loads, rel=0.08)
    assert loads.count(1) / rounds == pytest.approx(one_load, abs=0.04)
    assert statistics.fmean(gaps) == pytest.approx(gap, rel=0.04)
