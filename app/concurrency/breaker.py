"""A circuit breaker: after enough failures in a row it refuses calls for a while, then lets one probe by.

Closed, calls go through, and consecutive failures are counted. At the limit it opens: calls are refused at once. When
the open period is over it is half-open: exactly one call, the probe, goes through, and its outcome closes the breaker
or opens it for another full period.

Three rules keep that true when calls overlap:

- Every call belongs to the period that it was admitted in, and its outcome counts in no other. A call from before the
  opening neither closes the breaker by its success nor prolongs the opening by its failure.
- A call that ends without a word about the link (cancelled, interrupted) decides nothing. If it was the probe, the
  slot is free again, for one caller.
- A probe holds the slot for a bounded time. After it, the next caller is the probe, and the first one's outcome is
  ignored.

There are no timers and no tasks: the breaker changes only when a call enters or ends. No method waits, so one event
loop needs no lock; it is not thread-safe.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from types import TracebackType
from typing import TypeVar

from app.concurrency.clock import Clock, monotonic

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class BreakerState(Enum):
    """The values are those that metrics show."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class BreakerOpenError(Exception):
    """The call was refused and not made: the breaker is open, or half-open with its probe under way.

    Another call is let through in `retry_after_s` seconds at the latest.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the circuit breaker is open; retry in {retry_after_s:.3g} s")
        self.retry_after_s = retry_after_s


def _every_exception(_: BaseException) -> bool:
    return True


def _tell_nobody(_old: BreakerState, _new: BreakerState) -> None:
    pass


class CircuitBreaker:
    """Guards one link, such as that to a database.

    `failures` in a row open it, in the order in which the calls end, for `open_s` seconds. A probe has
    `probe_timeout_s` (by default `open_s`) before another may take its place; its outcome counts as long as none has.

    `counts` says whether an exception is a failure of the link; by default every `Exception` is. One that does not
    count is a success, not nothing: an error that the server answered with proves that the link works, and a probe
    answered so must close the breaker. What is no `Exception` (`CancelledError`, `KeyboardInterrupt`, `GeneratorExit`)
    is never asked about, and neutral.

    `on_change(old, new)` is called once for each transition, in order, with the new state in place. Transitions that it
    causes itself are announced when it has returned. What it raises is logged and goes no further: a listener cannot
    fail a call.

    A `clock` that is set back costs no time that a call has seen pass, and makes no wait longer than its period.

    Raises `ValueError` unless `failures` is at least 1 and both times are positive and finite.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        open_s: float = 30.0,
        probe_timeout_s: float | None = None,
        clock: Clock = monotonic,
        counts: Callable[[BaseException], bool] = _every_exception,
        on_change: Callable[[BreakerState, BreakerState], None] = _tell_nobody,
    ) -> None:
        if probe_timeout_s is None:
            probe_timeout_s = open_s
        if failures < 1:
            raise ValueError(f"failures must be at least 1, not {failures}")
        for name, seconds in (("open_s", open_s), ("probe_timeout_s", probe_timeout_s)):
            if not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {seconds}")
        self._failures = failures
        self._open_s = open_s
        self._probe_timeout_s = probe_timeout_s
        self._clock = clock
        self._counts = counts
        self._on_change = on_change

        self._state = BreakerState.CLOSED
        self._failed_in_a_row = 0
        # The period that a call is admitted in, or its being the probe; what ends under another number is ignored.
        self._generation = 0
        # Not closed: when the next probe may go, which is the end of the open period or of the running probe's time.
        self._next_probe_at = -math.inf
        self._clock_seen = -math.inf
        self._unannounced: deque[tuple[BreakerState, BreakerState]] = deque()
        self._announcing = False

    @property
    def state(self) -> BreakerState:
        """The state as of the last call. It is still `OPEN` after the period is over, until a call comes to probe."""
        return self._state

    @property
    def retry_after_s(self) -> float:
        """Seconds until a call is let through, at the latest; 0 where one would be now."""
        if self._state is BreakerState.CLOSED:
            return 0.0
        return max(0.0, self._next_probe_at - max(self._clock(), self._clock_seen))

    async def call(self, fn: Callable[[], Awaitable[T]]) -> T:
        """The value of `fn()`, whose exceptions pass unchanged.

        Bound the time inside `fn`: a timeout around this method is a cancellation, which says nothing about the link,
        so that a server that hangs would never open the breaker.

        Raises `BreakerOpenError`, without calling `fn`, where the call is refused.
        """
        with self.guard():
            return await fn()

    def guard(self) -> Guard:
        """A `with` block, awaits in it allowed, as one call: its outcome is how the block ends. `call` says the rest.

        Do not nest blocks of one breaker: each counts the same failure, and a probe would be refused by its own.
        """
        return Guard(self._admit, self._settle)

    def _admit(self) -> int:
        """The generation that the call belongs to; raises `BreakerOpenError`."""
        if self._state is BreakerState.CLOSED:
            return self._generation
        now = self._read_clock()
        if now < self._next_probe_at:
            raise BreakerOpenError(self._next_probe_at - now)
        self._next_probe_at = now + self._probe_timeout_s
        probe = self._enter(BreakerState.HALF_OPEN)
        try:
            self._announce()
        except BaseException as error:
            self._settle(probe, error)
            raise
        return probe

    def _settle(self, generation: int, error: BaseException | None) -> None:
        if generation != self._generation:
            return
        if error is None:
            self._succeed()
        elif not isinstance(error, Exception):
            self._free_the_slot()
        else:
            try:
                failed = self._counts(error)
            except BaseException:
                self._free_the_slot()
                raise
            if failed:
                self._fail()
            else:
                self._succeed()

    def _succeed(self) -> None:
        self._failed_in_a_row = 0
        if self._state is BreakerState.HALF_OPEN:
            self._enter(BreakerState.CLOSED)
            self._announce()

    def _fail(self) -> None:
        self._failed_in_a_row += 1
        if self._state is BreakerState.HALF_OPEN or self._failed_in_a_row >= self._failures:
            self._next_probe_at = self._read_clock() + self._open_s
            self._enter(BreakerState.OPEN)
            self._announce()

    def _free_the_slot(self) -> None:
        self._next_probe_at = -math.inf

    def _read_clock(self) -> float:
        """Now. A step back takes the next probe's time back with it, so that it is never further off than it was."""
        now = self._clock()
        if now < self._clock_seen:
            self._next_probe_at -= self._clock_seen - now
        self._clock_seen = now
        return now

    def _enter(self, state: BreakerState) -> int:
        """The new generation. A probe in another's place is one too, though the state stays the same."""
        self._generation += 1
        if state is not self._state:
            self._unannounced.append((self._state, state))
            self._state = state
        return self._generation

    def _announce(self) -> None:
        if self._announcing:
            return
        self._announcing = True
        try:
            while self._unannounced:
                old, new = self._unannounced.popleft()
                try:
                    self._on_change(old, new)
                except Exception:
                    _logger.exception("a circuit breaker's listener failed at %s to %s", old.name, new.name)
        finally:
            self._announcing = False


class Guard:
    """One call through a breaker, as a context manager for one use; `CircuitBreaker.guard` makes it.

    Entering raises `BreakerOpenError` where the call is refused, `RuntimeError` the second time.
    """

    __slots__ = ("_admit", "_generation", "_settle", "_used")

    def __init__(self, admit: Callable[[], int], settle: Callable[[int, BaseException | None], None]) -> None:
        self._admit = admit
        self._settle = settle
        self._used = False

    def __enter__(self) -> None:
        if self._used:
            raise RuntimeError("a breaker's guard admits one call; ask the breaker for another one")
        self._used = True
        self._generation = self._admit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._settle(self._generation, error)
