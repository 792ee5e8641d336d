"""One deadline for a chain of calls: who is called with so much time left passes on no more than that.

A budget is a context variable, so it holds in the task that sets it and in all that are started from there: within it,
every call asks how much time it may take, and one that has none left is not made at all.

The instants are on the monotonic clock of this process. Between processes travels what is left, not when it ends: their
clocks may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from app.concurrency.clock import Clock, monotonic

_ends_at: ContextVar[float | None] = ContextVar("budget_ends_at", default=None)


class BudgetExceededError(TimeoutError):
    """No time is left for what was to be done, so it was not begun."""


def begin(seconds: float) -> None:
    """As `budget`, to the end of the running task: for a task that does nothing but this one thing."""
    ends_at, outer = monotonic() + seconds, _ends_at.get()
    _ends_at.set(ends_at if outer is None else min(ends_at, outer))


@contextmanager
def budget(seconds: float | None, *, clock: Clock = monotonic) -> Iterator[None]:
    """Within it at most so many seconds are left, and no more than an outer budget leaves; `None` adds no bound."""
    if seconds is None:
        yield
        return
    ends_at, outer = clock() + seconds, _ends_at.get()
    token = _ends_at.set(ends_at if outer is None else min(ends_at, outer))
    try:
        yield
    finally:
        _ends_at.reset(token)


@contextmanager
def own_budget(seconds: float | None) -> Iterator[None]:
    """Within it the outer budget does not count: for work that others wait for too, whoever began it."""
    token = _ends_at.set(None if seconds is None else monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def time_left(*, clock: Clock = monotonic) -> float | None:
    """Seconds left in this context, 0 where it is over; `None` where there is no budget."""
    ends_at = _ends_at.get()
    return None if ends_at is None else max(0.0, ends_at - clock())


def allotted(
    default_s: float | None, *, margin_s: float = 0.0, margin_share: float = 0.0, clock: Clock = monotonic
) -> float | None:
    """How long a call may take that would take `default_s` at most: that, or if less, what is left but for a margin.

    The margin is `margin_share` of what is left, and `margin_s` besides; it is for the way back: an answer that comes
    in the last instant is too late to be passed on. `None` is without bound. Raises `BudgetExceededError` where nothing
    is left.
    """
    left = time_left(clock=clock)
    if left is None:
        return default_s
    left = left * (1 - margin_share) - margin_s
    if left <= 0:
        raise BudgetExceededError("the caller's time is over")
    return left if default_s is None else min(default_s, left)
