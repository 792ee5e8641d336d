from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loadtest.latency import percentile


def test_nearest_rank_on_the_textbook_example() -> None:
    # https://en.wikipedia.org/wiki/Percentile#Worked_examples_of_the_nearest-rank_method
    values = [15, 20, 35, 40, 50]
    assert [percentile(values, share) for share in (0.05, 0.3, 0.4, 0.5, 1)] == [15, 20, 20, 35, 50]


def test_the_rank_is_not_pushed_up_by_a_share_that_binary_cannot_write() -> None:
    # 0.07 * 100 and 0.55 * 100 come out a little above 7 and 55.
    assert [percentile(range(1, 101), share) for share in (0.07, 0.55)] == [7, 55]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300), st.integers(1, 1000))
def test_it_is_the_least_value_that_the_share_does_not_exceed(values: list[int], per_mille: int) -> None:
    share = Fraction(per_mille, 1000)
    expected = min(v for v in values if sum(w <= v for w in values) >= share * len(values))
    assert percentile(sorted(values), per_mille / 1000) == expected


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.01), ([1.0], math.nan)])
def test_a_percentile_of_nothing_or_out_of_range_is_an_error(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)
