from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.report.scale import Scale, linear, logarithmic, tick_label

positive = st.floats(1e-6, 1e9)


def check(scale: Scale, low: float, high: float) -> None:
    unseen = (high - low + abs(low)) * 1e-6  # less than can be drawn
    assert scale.low <= low + unseen
    assert scale.high >= high - unseen
    assert 2 <= len(scale.ticks) <= 14
    assert list(scale.ticks) == sorted(set(scale.ticks))
    assert all(0 <= scale.position(tick) <= 1 for tick in scale.ticks)
    assert scale.position(scale.low) == 0
    assert scale.position(scale.high) == pytest.approx(1)


@given(st.floats(-1e6, 1e6), positive)
def test_a_linear_axis_holds_its_data_with_a_few_ticks(low: float, width: float) -> None:
    assume(width > abs(low) * 1e-4)
    check(linear(low, low + width), low, low + width)


@given(positive, st.floats(1, 1e6))
def test_a_logarithmic_axis_holds_its_data_with_a_few_ticks(low: float, ratio: float) -> None:
    check(logarithmic(low, low * ratio), low, low * ratio)


def test_ticks_are_round_numbers() -> None:
    assert list(linear(0, 5195).ticks) == [0, 2000, 4000, 6000]
    assert list(linear(0, 1).ticks) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert list(logarithmic(1.2, 480).ticks) == [1, 2, 5, 10, 20, 50, 100, 200, 500]
    assert list(logarithmic(0.3, 8000).ticks) == pytest.approx([1, 10, 100, 1000, 10000])


def test_positions_are_proportional_on_a_linear_axis_and_by_ratio_on_a_logarithmic_one() -> None:
    assert linear(0, 10).position(2.5) == 0.25
    assert logarithmic(1, 100).position(10) == pytest.approx(0.5)


def test_what_lies_outside_is_clamped() -> None:
    assert (linear(0, 10).position(-5), linear(0, 10).position(50)) == (0, 1)
    assert logarithmic(1, 100).position(0) == 0


def test_an_axis_of_one_value_or_none_at_all_still_has_a_length() -> None:
    assert linear(3, 3).high > linear(3, 3).low
    assert logarithmic(3, 3).high > logarithmic(3, 3).low


def test_a_logarithmic_axis_cannot_begin_at_0() -> None:
    with pytest.raises(ValueError, match="above 0"):
        logarithmic(0, 1)


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (0.30000000000000004, "0.3"), (1500, "1,500"), (2.5, "2.5"), (1e-17, "0")]
)
def test_labels_are_short(value: float, words: str) -> None:
    assert tick_label(value) == words
