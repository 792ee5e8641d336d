"""A bound on waiting for somebody else's answer that does not count the time in which this process could not run.

Where a process is kept from running (a busy machine, a CPU quota, a long callback), a plain timeout fires as it goes on
again, while the answer lies in the socket's buffer, unread: everything that it waited for seems to have failed at once,
and circuit breakers open for others' good health.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

LAG_S = 0.01
"""A timer that fires later than this says that the event loop was held up."""
TURNS = 3
"""In one turn of the loop the socket is read, in the next one the waiter goes on; and one is for an answer in parts."""


class FairTimeout:
    """`async with` it as `asyncio.timeout(seconds)`, for one use: raises `TimeoutError` past `seconds`.

    Where the event loop was held up as the time ran out, it gets some turns first in which to read what has come in
    and to hand it on, a tenth of `seconds` each.

    Raises `ValueError` unless `seconds` is positive.
    """

    __slots__ = ("_bound", "_due", "_loop", "_seconds", "_timer", "_turns")

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, not {seconds}")
        self._seconds = seconds
        self._bound = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + self._seconds
        self._turns = 0
        await self._bound.__aenter__()
        self._timer = self._loop.call_at(self._due, self._expire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._bound.__aexit__(kind, error, traceback)

    def _expire(self) -> None:
        now = self._loop.time()
        if self._turns == TURNS or (self._turns == 0 and now - self._due <= LAG_S):
            self._bound.reschedule(now)
            return
        self._turns += 1
        self._timer = self._loop.call_at(now + self._seconds / 10, self._expire)
