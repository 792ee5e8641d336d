"""A turnstile: only so many pass in one turn of the event loop, so that a crowd leaves time for others in between."""

from __future__ import annotations

import asyncio
from collections import deque

LOOK_S = 0.005
"""From one look whether a crowd is on its way to the next."""
QUIET_LOOKS = 2
"""So many in a row must show that no more come: one may only show that whoever sends them had no processor."""
LONGEST_HOLD_S = 0.2
"""A crowd that goes on coming is let pass then."""


class Turnstile:
    """Lets `per_turn` callers pass in each turn of the event loop, in the order in which they came.

    A turn takes as long as all that is ready in it. Where a thousand callers become ready at once, each with work of a
    third of a millisecond, whoever comes next waits a third of a second. Behind a turnstile they take a turn each few.

    Where `crowd` callers or more have come in one turn, nobody passes until `QUIET_LOOKS` looks, each `LOOK_S` after
    the one before, have found fewer new ones, at most for `LONGEST_HOLD_S`: to take a crowd in takes the processor for
    a while, and work begun meanwhile would keep others waiting twice as long. After so long nobody is held up before
    the line has been empty.

    Bound to one event loop, and not thread-safe.
    """

    def __init__(self, *, per_turn: int, crowd: int | None = None) -> None:
        self._per_turn = per_turn
        self._crowd = crowd
        self._length = 0
        """Of the line, at the last turn."""
        self._hold_ends_at: float | None = None
        self._looks_left = 0
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
        if self._is_coming(loop.time()):
            self._left = 0
            loop.call_later(LOOK_S, self._turn, loop)
            return
        self._left = self._per_turn
        while self._line and self._left:
            place = self._line.popleft()
            if not place.done():  # it is, where the caller was cancelled
                place.set_result(None)
                self._left -= 1
        if not self._line:
            self._length, self._hold_ends_at, self._looks_left = 0, None, 0
        self._is_turn_due = self._left < self._per_turn
        if self._is_turn_due:
            loop.call_soon(self._turn, loop)

    def _is_coming(self, now: float) -> bool:
        """Whether a crowd is on its way in, and may be waited for."""
        before, self._length = self._length, len(self._line)
        if self._crowd is not None and self._length - before >= self._crowd:
            self._looks_left = QUIET_LOOKS
        elif self._looks_left:
            self._looks_left -= 1
        if not self._looks_left:
            return False
        if self._hold_ends_at is None:
            self._hold_ends_at = now + LONGEST_HOLD_S
        return now < self._hold_ends_at
