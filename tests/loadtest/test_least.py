from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from app.loadtest.least import least_loads

drawn_request = st.tuples(st.integers(1, 2), st.integers(0, 20), st.integers(0, 6))


def by_trying_all(requests: list[tuple[int, float, float]], ttl: float) -> int:
    """The fewest loads of one key, found by trying every set of moments at which anything changes."""
    moments = {end for _, _, end in requests} | {start - ttl for _, start, _ in requests}
    for size in range(len(requests) + 1):
        for loads in combinations(sorted(moments), size):
            if all(any(start <= x + ttl and end >= x for x in loads) for _, start, end in requests):
                return size
    raise AssertionError("one load a request always does")


@given(st.lists(drawn_request, max_size=7), st.integers(1, 8))
def test_no_choice_of_moments_does_with_fewer_loads(drawn: list[tuple[int, int, int]], ttl: int) -> None:
    requests = [(key, float(start), float(start + length)) for key, start, length in drawn]
    expected = sum(by_trying_all([r for r in requests if r[0] == key], ttl) for key in {r[0] for r in requests})
    assert least_loads(requests, ttl) == expected


def test_a_stampede_needs_one_load() -> None:
    assert least_loads([(1, n / 1000, 0.05 + n / 1000) for n in range(200)], 30) == 1


def test_each_key_needs_its_own() -> None:
    assert least_loads([(key, 0, 1) for key in range(220)], 30) == 220


def test_a_long_request_does_not_stretch_a_load_over_two_short_ones() -> None:
    assert least_loads([(1, 0, 10), (1, 1, 2), (1, 5, 6)], 1) == 2


def test_a_value_serves_until_its_ttl_after_its_load_and_not_beyond() -> None:
    assert least_loads([(1, 0, 0.05), (1, 2.05, 2.1)], 2) == 1
    assert least_loads([(1, 0, 0.05), (1, 2.06, 2.1)], 2) == 2


def test_steady_reads_need_one_load_a_ttl() -> None:
    # Reads every 10 ms for 12 s, each of no length: at 0, 2.01, 4.02 … of a 2 s TTL.
    assert least_loads([(1, n / 100, n / 100) for n in range(1200)], 2) == 6


def test_nothing_asked_needs_nothing() -> None:
    assert least_loads([], 30) == 0
