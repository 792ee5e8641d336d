"""A turnstile: only so many pass in one turn of the event loop, so that a crowd leaves time for others in between."""

from __future__ import annotations

import asyncio
from collections import deque

LOOK_S = 0.005
"""Between two looks whether a crowd is still on its way."""
MOST_LOOKS = 40
"""After so many, a crowd that goes on coming is let pass."""


class Turnstile:
    """Lets `per_turn` callers pass in each turn of the event loop, in the order in which they came.

    A turn takes as long as all that is ready in it. Where a thousand callers become ready at once, each with work of a
    third of a millisecond, whoever comes next waits a third of a second. Behind a turnstile they take a turn each few.

    Where `crowd` or more wait, and more have come since the last look, nobody passes until no more come, at most for
    `MOST_LOOKS` times `LOOK_S`: to take a crowd in takes the processor for a while, and work begun meanwhile would keep
    others waiting twice as long. Once a crowd has been let pass so, the next one is who comes after the line was empty.

    Bound to one event loop, and not thread-safe.
    """

    def __init__(self, *, per_turn: int, crowd: int | None = None) -> None:
        self._per_turn = per_turn
        self._crowd = crowd
        self._length = 0
        """Of the line, at the last look."""
        self._looks = 0
        self._left = per_turn
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_turn_due = False

    def __len__(self) -> int:
        """Callers waiting."""
        return len(self._line)

    async def passage(self) -> None:
        """Return in one of the next turns; at once, without a turn, where nobody waits and this turn has room."""
        if not self.admit():
            await self.line_up()

    def admit(self) -> bool:
        """Pass, where nobody waits and this turn has room. Whether it has."""
        if not self._is_turn_due:
            self._is_turn_due = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._turn, loop)
        if self._left and not self._line:
            self._left -= 1
            return True
        return False

    def line_up(self) -> asyncio.Future[None]:
        """A place in the line, after `admit` said no: done when its turn has come. Who cancels it leaves the line."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        return place

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_coming():
            self._left = 0
            loop.call_later(LOOK_S, self._turn, loop)
            return
        self._left = self._per_turn
        while self._line and self._left:
            place = self._line.popleft()
            if not place.done():  # it is, where the caller was cancelled
                place.set_result(None)
                self._left -= 1
        self._is_turn_due = self._left < self._per_turn
        if self._is_turn_due:
            loop.call_soon(self._turn, loop)

    def _is_coming(self) -> bool:
        """Whether a crowd is on its way in."""
        before, self._length = self._length, len(self._line)
        if not self._length:
            self._looks = 0
        if self._crowd is None or self._length < self._crowd or self._length <= before or self._looks == MOST_LOOKS:
            return False
        self._looks += 1
        return True
