"""Changes for a consumer with a pace of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from app.storage.change import Change


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes since the last batch, each id once, with its newest version.

    With `gap`, other templates may have changed as well, any of them.
    """

    changes: tuple[Change, ...]
    gap: bool


class Subscription:
    """Changes, kept until they are taken by `async for`, for one consumer; `async with` ends it.

    At most `max_ids` ids are kept; where more change before they are taken, they are dropped and the next batch says
    `gap`. While the feed is down nothing comes; what changed meanwhile comes when it is up again.
    """

    def __init__(self, max_ids: int, on_close: Callable[[Subscription], None]) -> None:
        if max_ids < 1:
            raise ValueError("max_ids must be at least 1")
        self._max_ids = max_ids
        self._on_close = on_close
        self._newest: dict[int, int] = {}
        self._gap = False
        self._closed = False
        self._ready = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The next batch, as soon as there is anything to tell. Ends when the subscription or the feed is closed.

        Being cancelled loses nothing: the next call returns it.
        """
        await self._ready.wait()
        if self._closed:
            raise StopAsyncIteration
        batch = Batch(tuple(Change(*item) for item in self._newest.items()), self._gap)
        self._newest, self._gap = {}, False
        self._ready.clear()
        return batch

    def close(self) -> None:
        """Harmless when repeated. What was not taken is gone."""
        if not self._closed:
            self._closed = True
            self._newest.clear()
            self._ready.set()
            self._on_close(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            known = self._newest.get(change.id)
            if known is None and len(self._newest) == self._max_ids:
                self._newest.clear()
                self._gap = True
            if known is None or change.version > known:
                self._newest[change.id] = change.version
        self._ready.set()

    def flushed(self) -> None:
        """What has changed and was not taken yet is no cache."""

    def feed_lost(self) -> None:
        """Nothing is missed by that: what changes in the gap is told after it."""

    def feed_caught_up(self) -> None:
        """What changed in the gap has been told."""

    def everything_changed(self) -> None:
        # Versions may begin anew, so those kept may be too high.
        self._newest.clear()
        self._gap = True
        self._ready.set()
