"""What has passed, on any connection, and is still to be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from app.concurrency.clock import Clock, monotonic

DELAY_S: Final = 0.01
"""Bytes are read so long after they have passed, at the latest."""
MAX_PIECES: Final = 128
MAX_BYTES: Final = 1 << 20
"""What waits; when there is more, all of it is read at once."""

Read = Callable[[bytes, float], None]
"""Reads a piece, and is told when it passed. Must not raise."""


class Backlog:
    """Pieces are read in the order in which they passed, those of many calls one after another.

    A processor that goes back and forth between sockets and reading has, each time, forgotten what it needs for either:
    it takes nearly twice as long. And nothing that passes waits for the reading of what came before it.
    """

    def __init__(self, *, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._pieces: list[tuple[Read, bytes, float]] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, read: Read, data: bytes) -> None:
        """A piece has passed now."""
        pieces = self._pieces
        pieces.append((read, data, self._clock()))
        self._size += len(data)
        if len(pieces) >= MAX_PIECES or self._size > MAX_BYTES:
            self.read()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_S, self.read)

    def read(self) -> None:
        """All that waits, now: for whoever is to know of everything that has passed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pieces, self._pieces, self._size = self._pieces, [], 0
        for read, data, at in pieces:
            read(data, at)
