"""An event loop whose time is a number: where all wait, it jumps to the next timer, so that an hour takes no time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""The wall clock's time at the loop's 0."""
FEW = 1_000
"""Cancelled timers that are kept until their time, however few others there are."""


class NothingLeftToWaitForError(Exception):
    """Every task waits for something that no timer will bring: for ever."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Deterministic: callbacks run in the order of their times, those of one time as they came; nothing else moves the
    clock.

    Only what lives on the loop takes part: a real socket or thread is not waited for.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._number = itertools.count().__next__
        self._timers: list[tuple[float, int, asyncio.TimerHandle | None, Callable[..., object], tuple[Any, ...]]] = []
        self._cancelled = 0

    def time(self) -> float:
        return self._now

    def wall(self) -> float:
        """The time as a date, in seconds since the epoch."""
        return EPOCH + self._now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001 - as the base class does
        heapq.heappush(self._timers, (when, self._number(), timer, callback, args))
        return timer

    def post_at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """As `call_at` for what is never cancelled and knows no context: far cheaper."""
        heapq.heappush(self._timers, (when, self._number(), None, callback, args))

    def passes_to(self, time: float) -> bool:
        """Go to `time` from within a callback, if nothing else has anything to do before. Whether that was so.

        Far cheaper than to sleep until then.
        """
        if self._ready or (self._timers and self._timers[0][0] <= time):
            return False
        self._now = max(time, self._now)
        return True

    def _run_once(self) -> None:
        """One turn, as the base class' own: what is due or ready now, and nothing that becomes so meanwhile."""
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping and not self._jumps():
            raise NothingLeftToWaitForError
        while timers and timers[0][0] <= self._now:
            _, _, timer, callback, args = heapq.heappop(timers)
            if timer is None:
                callback(*args)
            elif timer.cancelled():
                self._cancelled -= 1
            else:
                timer._scheduled = False  # type: ignore[attr-defined]  # noqa: SLF001
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001

    def _jumps(self) -> bool:
        """To the next timer that is not cancelled; `False` where there is none."""
        timers = self._timers
        while timers and (timer := timers[0][2]) is not None and timer.cancelled():
            heapq.heappop(timers)
            self._cancelled -= 1
        if not timers:
            return False
        self._now = max(self._now, timers[0][0])
        return True

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The base class' hook. Timers that are mostly cancelled ones, as timeouts are, are cleared of them."""
        if not handle._scheduled:  # type: ignore[attr-defined]  # noqa: SLF001 - its time has come
            return
        self._cancelled += 1
        if self._cancelled > FEW and 2 * self._cancelled > len(self._timers):
            self._timers[:] = [each for each in self._timers if each[2] is None or not each[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """The outcome of `main` on a loop of its own. Tasks that it leaves behind are cancelled."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
