"""Loading a value from where it really lives: bounded in number, bounded in time, and not at all while it is down."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from app.cache.entry import Entry
from app.cache.events import CacheEvents
from app.cache.freshness import jittered_ttl
from app.concurrency.breaker import BreakerOpenError, CircuitBreaker
from app.concurrency.budget import own_budget
from app.concurrency.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError
from app.concurrency.clock import Clock, monotonic, wall


class Loaded(NamedTuple):
    """What a load brought: the value's bytes, or `None` where there is no value, and its version."""

    payload: bytes | None
    version: int


Load = Callable[[str], Awaitable[Loaded]]
"""Loads the value of a key from its origin. May raise; what it raises reaches every caller that waits for the load."""


class LoadDeadlineError(TimeoutError):
    """The load did not end within its own deadline. No caller's deadline is ever the load's."""


class Origin:
    """Loads, each made into an entry.

    `ttl_s` is the longest life of a value and `negative_ttl_s` that of the knowledge that there is none; both are
    shortened at random by up to `jitter` of them. `deadline_s` bounds a load, its wait in the `bulkhead` not included.
    """

    def __init__(
        self,
        load: Load,
        *,
        ttl_s: float,
        negative_ttl_s: float,
        jitter: float,
        deadline_s: float,
        events: CacheEvents,
        bulkhead: Bulkhead | None = None,
        breaker: CircuitBreaker | None = None,
        now: Clock = wall,
        timer: Clock = monotonic,
        pick: Callable[[], float] = random.random,
    ) -> None:
        self._load = load
        self._ttl_s = ttl_s
        self._negative_ttl_s = negative_ttl_s
        self._jitter = jitter
        self._deadline_s = deadline_s
        self._events = events
        self._bulkhead = bulkhead
        self._breaker = breaker
        self._now = now
        self._timer = timer
        self._pick = pick

    async def load(self, key: str) -> Entry:
        """The entry of `key`, loaded now.

        Raises what the load raises, `LoadDeadlineError`, `BreakerOpenError` at once while the origin is known to be
        down, and `BulkheadFullError` or `BulkheadTimeoutError` where too many loads are in front of this one.
        """
        if self._breaker is not None and (retry_after_s := self._breaker.retry_after_s) > 0:
            # Not from behind the loads that hang: they hold their slots until their own deadline.
            raise BreakerOpenError(retry_after_s)
        if self._bulkhead is None:
            return await self._guarded(key)
        try:
            async with self._bulkhead.slot(key):
                return await self._guarded(key)
        except BulkheadFullError:
            self._events.refused("full")
            raise
        except BulkheadTimeoutError:
            self._events.refused("timeout")
            raise

    def made(self, payload: bytes | None, version: int) -> Entry:
        """The entry of a value that is known without a load: it was just written."""
        return Entry(payload, version, self._now(), self._life(payload), load_cost_s=0.0)

    async def _guarded(self, key: str) -> Entry:
        if self._breaker is None:
            return await self._timed(key)
        return await self._breaker.call(lambda: self._timed(key))

    async def _timed(self, key: str) -> Entry:
        # Dated from the load's beginning: the value may have been read as early as that.
        began_at, began = self._now(), self._timer()
        try:
            # Others wait for it too: what it calls may take its own time, not that of the caller who came first.
            with own_budget(self._deadline_s):
                async with asyncio.timeout(self._deadline_s) as deadline:
                    payload, version = await self._load(key)
        except TimeoutError as error:
            if deadline.expired():
                raise LoadDeadlineError(f"the load took longer than {self._deadline_s} s") from error
            raise
        return Entry(payload, version, began_at, self._life(payload), load_cost_s=self._timer() - began)

    def _life(self, payload: bytes | None) -> float:
        return jittered_ttl(self._ttl_s if payload is not None else self._negative_ttl_s, self._jitter, self._pick())
