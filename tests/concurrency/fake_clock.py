"""A clock that a test sets."""

from __future__ import annotations


class FakeClock:
    """Stands still until it is told to move, either way."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
