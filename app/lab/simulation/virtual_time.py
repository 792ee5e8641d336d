"""An event loop whose time is a number: where all wait, it jumps to the next timer, so that an hour takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""The wall clock's time at the loop's 0."""


class NothingLeftToWaitForError(Exception):
    """Every task waits for something that no timer will bring: for ever."""


class _Jumping(selectors.SelectSelector):
    """Where the loop would wait for so many seconds, lets so many pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise NothingLeftToWaitForError
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Deterministic: callbacks run in the order of their times, and nothing else moves the clock.

    Only what lives on the loop takes part: a real socket or thread is not waited for.
    """

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def wall(self) -> float:
        """The time as a date, in seconds since the epoch."""
        return EPOCH + self._jumping.now

    def passes_to(self, time: float) -> bool:
        """Go to `time` from within a callback, if nothing else has anything to do before. Whether that was so.

        Far cheaper than to sleep until then.
        """
        if self._ready or (self._scheduled and self._scheduled[0].when() <= time):  # type: ignore[attr-defined]
            return False
        self._jumping.now = max(time, self._jumping.now)
        return True


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """The outcome of `main` on a loop of its own. Tasks that it leaves behind are cancelled."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
