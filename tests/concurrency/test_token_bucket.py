from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.concurrency.token_bucket import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def buckets(clock: Clock, *, rate_per_s: float = 2.0, burst: int = 3, max_keys: int = 10) -> TokenBuckets:
    return TokenBuckets(rate_per_s=rate_per_s, burst=burst, max_keys=max_keys, now=clock)


def test_a_rested_key_may_take_its_burst_and_is_then_told_how_long_to_wait(clock: Clock) -> None:
    limit = buckets(clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_who_waits_as_long_as_told_is_let_through_once(clock: Clock) -> None:
    limit = buckets(clock)
    for _ in range(3):
        limit.take("a")
    clock.at += limit.take("a")
    assert limit.take("a") == 0
    assert limit.take("a") == 0.5


def test_who_is_refused_has_taken_nothing(clock: Clock) -> None:
    limit = buckets(clock)
    for _ in range(100):
        limit.take("a")
    clock.at += 0.5
    assert limit.take("a") == 0


def test_a_bucket_fills_up_to_its_burst_and_no_further(clock: Clock) -> None:
    limit = buckets(clock)
    limit.take("a")
    clock.at += 3_600
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_keys_have_buckets_of_their_own(clock: Clock) -> None:
    limit = buckets(clock, burst=1)
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    assert limit.take("b") == 0


def test_no_more_keys_are_remembered_than_may_be_and_the_least_recently_used_is_forgotten(clock: Clock) -> None:
    limit = buckets(clock, burst=1, max_keys=2)
    for key in ("a", "b", "a", "c"):
        limit.take(key)
    assert len(limit) == 2
    assert limit.take("a") > 0  # it was asked for again after b
    assert limit.take("b") == 0


def test_a_clock_that_steps_back_takes_no_tokens_away(clock: Clock) -> None:
    limit = buckets(clock, burst=2)
    limit.take("a")
    clock.at -= 100
    assert limit.take("a") == 0


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_never_are_more_let_through_than_the_burst_and_the_rate_allow(
    rate_per_s: float, burst: int, pauses: list[float]
) -> None:
    clock = Clock()
    limit = buckets(clock, rate_per_s=rate_per_s, burst=burst)
    taken = 0
    for pause in pauses:
        clock.at += pause
        taken += limit.take("a") == 0
    assert taken <= burst + rate_per_s * sum(pauses) + 1e-6


@pytest.mark.parametrize("wrong", [{"rate_per_s": 0.0}, {"burst": 0}, {"max_keys": 0}])
def test_bounds_that_let_nothing_through_are_refused(clock: Clock, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        buckets(clock, **wrong)
