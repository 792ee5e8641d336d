"""Background tasks that somebody owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class TaskSet:
    """Tasks in the background, referenced until they end, at most `limit` at a time.

    What a task raises is logged: nobody awaits it.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()
        self._to_end: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], *, to_end: bool = False) -> asyncio.Task[Any] | None:
        """Run `work` as a task; `None`, and `work` is dropped unrun, where as many run as are allowed, or when closed.

        With `to_end` it is short, and others wait for what it does: closing does not cancel it.
        """
        if self._is_closed or len(self._tasks) >= self._limit:
            work.close()
            return None
        task = asyncio.create_task(work)
        self._tasks.add(task)
        if to_end:
            self._to_end.add(task)
        task.add_done_callback(self._ended)
        return task

    async def aclose(self, timeout_s: float) -> None:
        """Cancel all, and wait for their end, and for that of what they start in ending, at most `timeout_s` seconds.

        What still runs then is cancelled too; raises `TimeoutError`.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        for task in self._tasks - self._to_end:
            task.cancel()
        while self._tasks:
            done, _ = await asyncio.wait(
                self._tasks, timeout=max(0.0, ends_at - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
        self._is_closed = True
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            raise TimeoutError(f"{len(self._tasks)} background tasks did not end within {timeout_s} s")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._to_end.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background task failed", exc_info=error)
