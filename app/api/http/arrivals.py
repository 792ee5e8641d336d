"""Requests that arrive in one instant: hits are begun at once, of the others a few in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.api.http.hits import PATH
from app.concurrency.turnstile import Turnstile
from app.telemetry.plain import Count

ARRIVED = "arrived"
"""In a scope's state: when the bytes of a request that had to wait came, by the performance counter."""
BEGUN_A_TURN = 2
"""Requests that are no hits and are parsed in one turn."""
CROWD = 16
"""Where so many of them wait, those on their way come in first."""

Holds = Callable[[str], bool]
"""Whether this process holds a key's fresh value. Asking changes nothing and counts nothing."""

_HIT_BEGINS = b"GET %b?id=" % PATH.encode("ascii")
_BEGIN = len(_HIT_BEGINS)
_LONGEST_KEY = 18


class Arrivals:
    """The line in which connections wait to have a request parsed, one for all connections of a server.

    To parse a request, and to begin with it, takes a fraction of a millisecond: where a thousand come in one turn of
    the event loop, each hit among them would wait for all.

    Who waits is counted as in flight.
    """

    def __init__(
        self, holds: Holds, *, in_flight: Count, per_turn: int = BEGUN_A_TURN, crowd: int | None = CROWD
    ) -> None:
        self._holds = holds
        self._in_flight = in_flight
        self._turnstile = Turnstile(per_turn=per_turn, crowd=crowd)

    @property
    def waiting(self) -> int:
        """Connections in the line."""
        return len(self._turnstile)

    def admit(self, data: bytes) -> bool:
        """Whether a request that begins so may be parsed now: it is a GET that L1 answers, or this turn has room."""
        if data[:_BEGIN] == _HIT_BEGINS:
            end = data.find(b" ", _BEGIN, _BEGIN + _LONGEST_KEY + 1)
            if end > _BEGIN and self._holds(data[_BEGIN:end].decode("latin-1")):
                return True
        return self._turnstile.admit()

    def line_up(self) -> asyncio.Future[None]:
        """A place in the line: done when its turn has come. Who cancels it leaves the line."""
        place = self._turnstile.line_up()
        self._in_flight.value += 1
        place.add_done_callback(self._left)
        return place

    def _left(self, _: asyncio.Future[None]) -> None:
        self._in_flight.value -= 1
