"""A listener to changes that keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from app.storage.change import Change

LOST, CAUGHT_UP, EVERYTHING, FLUSHED = "lost", "caught up", "everything", "flushed"


class RecordingListener:
    """`told` holds changes and the words above, in order."""

    def __init__(self) -> None:
        self.told: list[Change | str] = []
        self._news = asyncio.Event()

    def changed(self, changes: Sequence[Change]) -> None:
        self._keep(*changes)

    def feed_lost(self) -> None:
        self._keep(LOST)

    def feed_caught_up(self) -> None:
        self._keep(CAUGHT_UP)

    def everything_changed(self) -> None:
        self._keep(EVERYTHING)

    def flushed(self) -> None:
        self._keep(FLUSHED)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_told(self, *what: Change | str, timeout_s: float = 30.0) -> None:
        """Until it has been told all of these, one after the other, with anything in between."""

        def all_told() -> bool:
            told = iter(self.told)
            return all(each in told for each in what)

        await self.until(all_told, timeout_s)

    def take(self) -> list[Change | str]:
        """What was told since the last call."""
        told, self.told = self.told, []
        return told

    def _keep(self, *what: Change | str) -> None:
        self.told += what
        self._news.set()
