"""Bringing Redis up to date after it could not be reached, before anything is asked of it again."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable

from app.cache.entry import Entry
from app.cache.remote import RemoteCache
from app.concurrency.breaker import CircuitBreaker

_logger = logging.getLogger(__name__)

FIRST_RETRY_S, MOST_RETRY_S = 0.05, 1.0
AT_ONCE = 8
"""Invalidations, or values, under way to Redis at a time: readers use the same connections."""
MOST_REFUSED = 64
"""Invalidations that Redis may refuse to take before there is a pause."""


class Recovery:
    """Invalidations that Redis has yet to take, at most `max_pending`, and the task that sees to it that it does.

    While the breaker on Redis is open, this task's probe is the only caller that it lets by. The probe first delivers
    every pending invalidation, or, where there were too many to keep, sweeps away all values; only then is Redis read
    again. After that `fresh_values` are put there, where they are newer, so that no herd meets an empty cache.
    """

    def __init__(
        self,
        remote: RemoteCache,
        breaker: CircuitBreaker,
        *,
        max_pending: int,
        fresh_values: Callable[[], list[tuple[str, Entry]]],
    ) -> None:
        self._remote = remote
        self._breaker = breaker
        self._max_pending = max_pending
        self._fresh_values = fresh_values
        self._pending: dict[str, int] = {}
        self._sweep = False
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """Invalidations that Redis has yet to take."""
        return len(self._pending)

    def start(self) -> None:
        """Work in a task of this object's own."""
        self._task = asyncio.create_task(self._run(), name="redis-recovery")

    async def aclose(self) -> None:
        """End the task. What is pending then is left to the other replicas, which heard the same announcements."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def wake(self) -> None:
        """The breaker has opened."""
        self._work.set()

    async def invalidate(self, key: str, version: int) -> bool:
        """Tell Redis now; where that fails, later. Whether it knows."""
        if await self._remote.invalidate(key, version):
            return True
        self.invalidate_later(key, version)
        return False

    def invalidate_later(self, key: str, version: int) -> None:
        """Tell Redis, without waiting for it.

        Where there is no room, an id's first version is no reason for a sweep: past is then only that the id was not
        there, which Redis keeps for a moment, and which each replica's own floor keeps out. So an import of any length
        leaves the values of all others where they are.
        """
        if len(self._pending) >= self._max_pending and key not in self._pending:
            if version > 1:
                self.sweep_later()
        elif not self._sweep:
            self._pending[key] = max(version, self._pending.get(key, 0))
        self._work.set()

    def sweep_later(self) -> None:
        """Have all values in Redis removed, since which of them are past is not known."""
        self._pending.clear()
        self._sweep = True
        self._work.set()

    async def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            await self._work.wait()
            self._work.clear()
            was_away = not self._remote.is_available
            if was_away:
                await asyncio.sleep(self._breaker.retry_after_s)
            try:
                done = await self._catch_up(was_away)
            except Exception:
                # This task's end would leave the breaker open for ever.
                _logger.exception("bringing Redis up to date failed; it begins again")
                done = False
            if done:
                retry_s = FIRST_RETRY_S
            else:
                self._work.set()
                await asyncio.sleep(FIRST_RETRY_S if was_away else retry_s)  # the breaker has a pace of its own
                retry_s = min(2 * retry_s, MOST_RETRY_S)

    async def _catch_up(self, was_away: bool) -> bool:
        if not was_away and not self._sweep:
            return await self._deliver()
        if not await self._probe():
            return False
        return await self._refill() if was_away else True

    async def _deliver(self) -> bool:
        refused = 0
        while len(self._pending) > refused:
            batch = list(itertools.islice(self._pending.items(), AT_ONCE))
            taken = await asyncio.gather(*(self._remote.invalidate(key, version) for key, version in batch))
            self._settle([item for item, done in zip(batch, taken, strict=True) if done])
            for (key, _), done in zip(batch, taken, strict=True):
                if not done and key in self._pending:
                    # Behind the others: they may be those of a cluster's other shards.
                    self._pending[key] = self._pending.pop(key)
                    refused += 1
            if refused >= MOST_REFUSED or (refused and not self._remote.is_available):
                return False
        return not refused

    async def _probe(self) -> bool:
        batch, sweep, done = list(self._pending.items()), self._sweep, False
        self._sweep = False  # what comes from here on is news
        try:
            done = await self._remote.probe(batch, sweep=sweep)
        finally:
            self._sweep = self._sweep or (sweep and not done)
        if done:
            self._settle(batch)
        return done

    def _settle(self, delivered: list[tuple[str, int]]) -> None:
        for key, version in delivered:
            if self._pending.get(key) == version:
                del self._pending[key]

    async def _refill(self) -> bool:
        values = self._fresh_values()
        for start in range(0, len(values), AT_ONCE):
            # What was announced meanwhile goes first: it keeps out those of the values that it made past.
            if self._sweep or not self._remote.is_available or not await self._deliver():
                return False
            await asyncio.gather(*(self._remote.put(key, entry) for key, entry in values[start : start + AT_ONCE]))
        return True
