from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.freshness import Usability, distrusted_at, jittered_ttl, usability

draws = st.floats(0, 1, exclude_max=True)


@given(st.floats(0.001, 3600), st.floats(0, 1, exclude_max=True), draws)
def test_jitter_only_shortens_and_by_no_more_than_its_share(ttl_s: float, jitter: float, random: float) -> None:
    life = jittered_ttl(ttl_s, jitter, random)
    assert ttl_s * (1 - jitter) * (1 - 1e-9) <= life <= ttl_s
    assert life > 0


@given(st.floats(0.001, 3600), draws)
def test_without_jitter_a_life_is_the_whole_ttl(ttl_s: float, random: float) -> None:
    assert jittered_ttl(ttl_s, 0.0, random) == ttl_s


def test_the_draw_spreads_lives_over_the_whole_share() -> None:
    assert [jittered_ttl(10.0, 0.2, random) for random in (0.0, 0.5)] == [10.0, 9.0]
    assert 8.0 < jittered_ttl(10.0, 0.2, 0.999) < 8.01


# What an entry is good for

EXPIRES = 1_000.0


@pytest.mark.parametrize(
    ("late_s", "use"),
    [
        (-1e9, Usability.FRESH),
        (-0.001, Usability.FRESH),
        (0.0, Usability.GRACE),
        (9.999, Usability.GRACE),
        (10.0, Usability.ON_ERROR),
        (299.999, Usability.ON_ERROR),
        (300.0, Usability.NONE),
        (1e9, Usability.NONE),
    ],
)
def test_a_stretch_begins_with_the_expiry_and_does_not_hold_its_end(late_s: float, use: Usability) -> None:
    assert usability(EXPIRES + late_s, EXPIRES, grace_s=10.0, stale_if_error_s=300.0) is use


def test_both_stretches_count_from_the_expiry_and_the_longer_grace_is_no_shorter_for_it() -> None:
    assert usability(EXPIRES + 5, EXPIRES, grace_s=10.0, stale_if_error_s=2.0) is Usability.GRACE
    assert usability(EXPIRES + 10, EXPIRES, grace_s=10.0, stale_if_error_s=2.0) is Usability.NONE


def test_without_the_stretches_an_expired_entry_is_good_for_nothing() -> None:
    assert usability(EXPIRES, EXPIRES, grace_s=0.0, stale_if_error_s=0.0) is Usability.NONE
    assert usability(EXPIRES, EXPIRES, grace_s=0.0, stale_if_error_s=1.0) is Usability.ON_ERROR


def test_what_is_good_for_more_is_good_for_less() -> None:
    assert Usability.FRESH > Usability.GRACE > Usability.ON_ERROR > Usability.NONE
    assert not Usability.NONE


@given(st.floats(0, 4e9), st.floats(0, 3600), st.floats(0, 3600), st.floats(0, 3600))
def test_an_entry_never_gets_better_with_age(now: float, later_s: float, grace_s: float, on_error_s: float) -> None:
    before, after = (
        usability(moment, 2e9, grace_s=grace_s, stale_if_error_s=on_error_s) for moment in (now, now + later_s)
    )
    assert after <= before


# Trust


def test_an_entry_is_trusted_for_ever_while_changes_are_announced_and_else_for_so_long_from_its_load() -> None:
    assert distrusted_at(1_000.0, None) == math.inf
    assert distrusted_at(1_000.0, 1.5) == 1_001.5
    assert distrusted_at(1_000.0, 0.0) == 1_000.0
