"""Axes: from values to positions, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `position` maps a value of it to 0…1 and clamps what lies outside."""

    low: float
    high: float
    ticks: Sequence[float]
    transform: Callable[[float], float]

    def position(self, value: float) -> float:
        bottom, top = self.transform(self.low), self.transform(self.high)
        clamped = min(max(value, self.low), self.high)
        return (self.transform(clamped) - bottom) / (top - bottom)


def linear(low: float, high: float, about: int = 5) -> Scale:
    """An axis that holds `low` to `high`, with ends and roughly `about` ticks at 1, 2 or 5 times a power of ten."""
    if high <= low:
        high = low + 1
    step = _round_step((high - low) / about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Scale(first * step, last * step, [n * step for n in range(first, last + 1)], float)


def logarithmic(low: float, high: float) -> Scale:
    """A logarithmic axis that holds `low` (above 0) to `high`, its ticks at 1, 2, 5 times powers of ten.

    Over more than three decades the ticks are at powers of ten only. Raises `ValueError` where `low` is not above 0.
    """
    if low <= 0:
        raise ValueError("a logarithmic axis begins above 0")
    high = max(high, low * 1.01)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
    bottom = max(mark for mark in marks if mark <= low * (1 + 1e-9))
    top = min(mark for mark in marks if mark >= high * (1 - 1e-9))
    inside = [mark for mark in marks if bottom <= mark <= top]
    if math.log10(top / bottom) > 3:
        inside = [mark for mark in inside if abs(math.log10(mark) - round(math.log10(mark))) < 1e-9]
    return Scale(bottom, top, inside, math.log10)


def tick_label(value: float) -> str:
    """A short decimal, digits grouped by thousands."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}" if abs(value) >= 1e-9 else "0"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if rough <= m * power * (1 + 1e-9))
