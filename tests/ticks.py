"""Bounds on how long something takes that a stall of the tests' own process can't break."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

TICK_S = 0.01


class Ticks:
    """`async with` it around a step: counts the event loop's turns of `TICK_S` until the step ends.

    Some seconds in which this process can't run are one tick, while what waits for a timer or for a peer goes through
    as many as it waits: a bound on ticks says what was waited for, and not how busy the machine was. It sees nothing of
    a step that doesn't give the loop away.
    """

    def __init__(self) -> None:
        self.count = 0

    @property
    def seconds(self) -> float:
        """The ticks so far, in seconds: never more than really went by."""
        return self.count * TICK_S

    async def __aenter__(self) -> Self:
        self._counting = asyncio.create_task(self._count())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._counting.cancel()
        await asyncio.wait([self._counting])

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.count += 1
