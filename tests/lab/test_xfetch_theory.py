"""The formulas, against the values that were worked out by hand and published."""

from __future__ import annotations

import math

import pytest

from app.lab.xfetch import theory


@pytest.mark.parametrize(
    ("beta", "mean", "one", "p99", "gap"),
    [
        (0.5, 7.39, 0.135, 32, 2.24),
        (1.0, 2.72, 0.368, 11, 5.18),
        (2.0, 1.65, 0.607, 5, 11.75),
        (4.0, 1.28, 0.779, 4, 26.27),
    ],
)
def test_the_formulas_give_the_known_table_at_a_hundred_reads_a_load(
    beta: float, mean: float, one: float, p99: int, gap: float
) -> None:
    assert round(theory.mean_loads(beta), 2) == mean
    assert round(theory.chance_of_one(beta), 3) == one
    assert math.ceil(theory.p99_loads(beta)) == p99
    assert round(theory.mean_gap(beta, 100), 2) == gap


def test_the_percentile_is_where_the_geometric_distributions_tail_is_one_in_a_hundred() -> None:
    for beta in (0.5, 1.0, 2.0, 4.0):
        more = (1 - theory.chance_of_one(beta)) ** theory.p99_loads(beta)
        assert more == pytest.approx(0.01)


def test_unprotected_everybody_who_comes_during_a_load_loads() -> None:
    assert theory.unprotected(100) == 101
