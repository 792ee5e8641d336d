"""Mutual exclusion by key: one holder for each key, the others wait in line."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from typing import Any


class TooManyWaitersError(Exception):
    """As many callers wait for the key as the lock allows; this one was refused at once."""


class _Line:
    """The holder of a key, and those who wait for it in the order in which they came."""

    __slots__ = ("holder", "waiting")

    def __init__(self, holder: asyncio.Task[Any] | None) -> None:
        self.holder = holder
        self.waiting: OrderedDict[asyncio.Future[None], asyncio.Task[Any] | None] = OrderedDict()


class KeyedLock:
    """Locks by key, first come, first served. Only keys in use take memory.

    `max_waiters` bounds those who wait for one key (`None`: no bound), `timeout_s` how long each waits (`None`: for
    ever); how long a key is held is the holder's affair. For one event loop, and not thread-safe.

    Raises `ValueError` where `max_waiters` is negative or `timeout_s` is not positive.
    """

    def __init__(self, *, max_waiters: int | None = None, timeout_s: float | None = None) -> None:
        if max_waiters is not None and max_waiters < 0:
            raise ValueError(f"max_waiters must be at least 0, not {max_waiters}")
        if timeout_s is not None and not timeout_s > 0:
            raise ValueError(f"timeout_s must be positive, not {timeout_s}")
        self._max_waiters = max_waiters
        self._timeout_s = timeout_s
        self._lines: dict[Hashable, _Line] = {}

    def __len__(self) -> int:
        """The number of keys that are held."""
        return len(self._lines)

    @asynccontextmanager
    async def holding(self, key: Hashable) -> AsyncGenerator[None]:
        """Runs the block as the only one for `key`.

        Raises `TooManyWaitersError`, `TimeoutError` where the key did not become free in time, and `RuntimeError` where
        the task holds the key already: it would wait for itself.
        """
        await self._acquire(key)
        try:
            yield
        finally:
            self._hand_over(key)

    async def _acquire(self, key: Hashable) -> None:
        task = asyncio.current_task()
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line(task)
            return
        if line.holder is task:
            raise RuntimeError(f"this task holds {key!r} already, and would wait for itself")
        if self._max_waiters is not None and len(line.waiting) >= self._max_waiters:
            raise TooManyWaitersError(f"{len(line.waiting)} callers wait for {key!r} already")
        turn = asyncio.get_running_loop().create_future()
        line.waiting[turn] = task
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._hand_over(key)  # the key came in the same tick as the cancellation, and must not be lost
            else:
                line.waiting.pop(turn, None)
            raise

    def _hand_over(self, key: Hashable) -> None:
        """Gives the key to the next in line, who holds it from now on, even before it runs: nobody can cut in."""
        line = self._lines[key]
        while line.waiting:
            turn, line.holder = line.waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        del self._lines[key]
