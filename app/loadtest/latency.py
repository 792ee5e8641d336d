"""Exact percentiles of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the least value that `share` (above 0, at most 1) of all values do not exceed.

    It is always one of the values, never interpolated. `ordered` ascends; raises `ValueError` where it is empty or
    `share` is out of range.
    """
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    if not 0 < share <= 1:
        raise ValueError(f"a percentile's share is above 0 and at most 1, not {share}")
    # Rounding first: 0.07 * 100 is 7.000000000000001 in binary, and its ceiling would be one rank too high.
    return ordered[math.ceil(round(share * len(ordered), 9)) - 1]
