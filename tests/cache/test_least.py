from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from app.cache.least import LeastLoads
from app.loadtest.least import least_loads
from tests.concurrency.fake_clock import FakeClock

TTL_S = 2.5  # between two whole seconds, so that no read falls on a window's very end

reads = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), max_size=60)
"""Seconds since the read before, and the key."""


def counted(times_and_keys: list[tuple[int, int]], *, max_keys: int = 100) -> int:
    clock = FakeClock()
    least = LeastLoads(TTL_S, max_keys=max_keys, clock=clock)
    needed = 0
    for pause, key in times_and_keys:
        clock.advance(pause)
        needed += least.is_needed(str(key))
    return needed


@given(reads)
def test_counting_as_reads_come_in_gives_what_the_whole_log_gives(times_and_keys: list[tuple[int, int]]) -> None:
    moments = itertools.accumulate(pause for pause, _ in times_and_keys)
    log = [(key, float(at), float(at)) for at, (_, key) in zip(moments, times_and_keys, strict=True)]
    assert counted(times_and_keys) == least_loads(log, TTL_S)


@given(reads, st.integers(1, 4))
def test_with_too_many_keys_to_remember_the_count_is_never_too_low(
    times_and_keys: list[tuple[int, int]], max_keys: int
) -> None:
    assert counted(times_and_keys, max_keys=max_keys) >= counted(times_and_keys)


def test_a_window_begins_at_the_read_that_needed_a_load_and_not_at_later_ones() -> None:
    assert [counted([(0, 1)] + [(1, 1)] * n) for n in range(6)] == [1, 1, 1, 2, 2, 2]


def test_it_remembers_no_more_keys_than_it_may_and_forgets_the_oldest_window_first() -> None:
    clock = FakeClock()
    least = LeastLoads(TTL_S, max_keys=2, clock=clock)
    assert [least.is_needed(key) for key in "abc"] == [True, True, True]
    assert [least.is_needed(key) for key in "bc"] == [False, False]
    assert least.is_needed("a")
    assert [least.is_needed(key) for key in "cab"] == [False, False, True]
