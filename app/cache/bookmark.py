"""Up to where the origin's announcements have been heard by some replica, kept beside the values that depend on it.

While no replica runs, changes are announced to nobody, and what Redis holds grows old unnoticed. The first replica to
start again reads the bookmark and asks for what was announced since.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from app.cache.remote import RemoteCache

NAME = "heard"


class Bookmark:
    """Keeps what `heard` says, every `every_s` seconds and at the end; `None` from it keeps what was kept.

    Replicas write over each other: an earlier place is as right as a later one, and only costs telling more again.
    """

    def __init__(self, remote: RemoteCache, heard: Callable[[], str | None], *, every_s: float = 5.0) -> None:
        self._remote = remote
        self._heard = heard
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep it in a task of this object's own."""
        self._task = asyncio.create_task(self._run(), name="bookmark")

    async def aclose(self) -> None:
        """End the task, and keep it once more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await self._keep()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._keep()

    async def _keep(self) -> None:
        heard = self._heard()
        if heard is not None:
            await self._remote.note(NAME, heard)


async def bookmarked(remote: RemoteCache) -> str | None:
    """What was kept last; `None` where nothing was, or Redis can't say."""
    return await remote.noted(NAME)
