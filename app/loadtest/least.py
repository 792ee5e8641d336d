"""The least possible number of database loads for what was asked, from the log of requests alone."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter


def least_loads(requests: Iterable[tuple[int, float, float]], ttl_s: float) -> int:
    """The fewest loads that could have answered all `requests`, each a key with its start and end in seconds.

    A load whose value appears at time x can answer a request that ends at x or later, and that starts at x + `ttl_s`
    or earlier: before the value's longest life is over. So for each key the intervals [start − ttl, end] are to be
    stabbed with the fewest points. The greedy choice is optimal: take the request that ends first, put a load at its
    end, the latest moment that still answers it; strike out all that this load answers; repeat.

    It is a lower bound for any cache, one that sees the future included; `ttl_s` is the longest life of a value.
    """
    by_key: dict[int, list[tuple[float, float]]] = {}
    for key, start, end in requests:
        by_key.setdefault(key, []).append((start, end))
    return sum(_fewest_points(intervals, ttl_s) for intervals in by_key.values())


def _fewest_points(intervals: list[tuple[float, float]], ttl_s: float) -> int:
    loads = 0
    fresh_until = float("-inf")
    for start, end in sorted(intervals, key=itemgetter(1)):
        if start > fresh_until:
            loads += 1
            fresh_until = end + ttl_s
    return loads
