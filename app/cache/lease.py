"""One loader a key across all replicas: whoever holds the key's lease loads, the others wait to be woken."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

from app.cache.entry import Entry
from app.cache.events import CacheEvents, Source
from app.cache.remote import Grant, RemoteCache, Stored, Taken
from app.cache.wakeups import Wakeups
from app.concurrency.clock import Clock, wall
from app.concurrency.tasks import TaskSet

RETURNED_TOGETHER = 100
"""Leases at most that are given back by one command: Redis does nothing else meanwhile."""
MOST_RETURNED = 10_000
"""Leases at most that wait to be given back; past it the oldest, which are the next to end, are left to end."""
EXPIRY_MARGIN_S = 0.01
"""How long after a lease's announced end its waiters look again, so that it has really ended."""
FIRST_POLL_S, MOST_POLL_S = 0.005, 0.1
"""How often waiters look where nothing can wake them."""
FIRST_RETRY_S, MOST_RETRY_S = 0.05, 0.5
"""How often a holder tries to put what Redis did not take."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a reader will accept from the remote tier.

    `newer_than`: created after this, in seconds since the epoch; what is older may have changed since, and what is
    older than `past_until` has. `least_version`: nothing below it. A value past its life will do for `grace_s` seconds
    after it at once, while it is loaded anew; and for `stale_if_error_s` where the load fails, as will one that may
    have changed.
    """

    newer_than: float = 0.0
    past_until: float = 0.0
    least_version: int = 0
    grace_s: float = 0.0
    stale_if_error_s: float = 0.0


def _random_token() -> str:
    return uuid.uuid4().hex


class LeasedFill:
    """Gets a key's value from the remote tier or, fleet-wide once, from the origin.

    Redis is never worth an outage: where it can't be asked, this process loads for itself. `token` makes what no other
    try for a lease, of any process, has.
    """

    def __init__(
        self,
        *,
        remote: RemoteCache,
        wakeups: Wakeups,
        load: Callable[[str], Awaitable[Entry]],
        background: TaskSet,
        events: CacheEvents,
        failures: tuple[type[Exception], ...],
        now: Clock = wall,
        token: Callable[[], str] = _random_token,
    ) -> None:
        self._failures = failures
        self._remote = remote
        self._wakeups = wakeups
        self._load = load
        self._background = background
        self._events = events
        self._now = now
        self._token = token
        self._returned: deque[tuple[str, str]] = deque(maxlen=MOST_RETURNED)
        """Keys and tokens of leases that are to be given back."""
        self._returning: asyncio.Task[None] | None = None

    async def obtain(self, key: str, terms_now: Callable[[], Terms]) -> tuple[Entry, Source]:
        """A value by the terms of the moment, which are asked for at each look; loaded if need be.

        Raises what the load raises; its lease is given back then.
        """
        poll_s = FIRST_POLL_S
        waited = False
        while True:
            token = self._token()
            terms = terms_now()
            # Registered before the try: a put in between would wake nobody.
            with self._wakeups.expected(key) as woken:
                taken = await self._take(key, token, terms)
                if taken is None:
                    self._events.miss()
                    return await self._load(key), "origin"
                if taken.grant is Grant.HIT and taken.entry is not None:
                    self._events.hit("l2")
                    return taken.entry, "l2"
                in_grace = self._usable(taken.entry, terms.newer_than, terms.grace_s)
                if taken.grant is Grant.WON:
                    self._events.lease("taken_over" if waited else "won")
                    if in_grace is None:
                        self._events.miss()
                        return await self._load_or_fall_back(key, token, taken.entry, terms_now)
                    if self._background.start(self._load_behind(key, token)) is None:
                        await self._remote.release((key, token))
                if in_grace is not None:
                    self._events.stale("grace")
                    return in_grace, "stale"
                if not waited:
                    self._events.lease("waited")
                    waited = True
                wait_s = taken.remaining_s + EXPIRY_MARGIN_S
                if not self._wakeups.is_up:
                    wait_s = min(wait_s, poll_s)
                    poll_s = min(2 * poll_s, MOST_POLL_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await woken.wait()

    async def refresh(self, key: str, seen: Entry) -> Entry | None:
        """A value newer than `seen`, from the remote tier or by a load; `None` where another is loading it already.

        Never waits for another's lease. Where Redis can't be asked, it loads.
        """
        token = self._token()
        taken = await self._take(key, token, Terms(newer_than=seen.created_at, least_version=seen.version))
        if taken is None:
            return await self._load(key)
        if taken.grant is Grant.HIT:
            return taken.entry
        if taken.grant is Grant.LOST:
            return None
        self._events.lease("won")
        return await self._load_and_put(key, token)

    async def _take(self, key: str, token: str, terms: Terms) -> Taken | None:
        """`RemoteCache.take`; a try that is cancelled gives back what it may have won."""
        try:
            return await self._remote.take(
                key, token, now=self._now(), newer_than=terms.newer_than, least_version=terms.least_version
            )
        except BaseException:
            self._give_back(key, token)
            raise

    async def _load_behind(self, key: str, token: str) -> None:
        try:
            await self._load_and_put(key, token)
        except self._failures:
            return  # counted where it failed; who asked has been answered, and the next one tries again

    async def _load_and_put(self, key: str, token: str) -> Entry:
        try:
            entry = await self._load(key)
            stored = await self._remote.put(key, entry, token)
        except BaseException:
            # In the background: the one who was cancelled, or whose load failed, need not wait for Redis as well. In
            # vain where the put has ended the lease.
            self._give_back(key, token)
            raise
        if stored is Stored.FENCED:
            self._events.lease("fenced")
        elif stored is Stored.UNAVAILABLE and self._remote.is_available:
            self._background.start(self._put_later(key, entry, token))
        return entry

    async def _put_later(self, key: str, entry: Entry, token: str) -> None:
        """Put it until Redis takes it, or the lease has ended: who waits on that would wait for its whole life.

        One operation may fail, or one shard of a cluster be lost until another node, which knows the lease, takes over.
        """
        ends_at = self._now() + self._remote.lease_s
        retry_s = FIRST_RETRY_S
        while self._now() < ends_at:
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, MOST_RETRY_S)
            if not self._remote.is_available:
                return  # a Redis that was lost as a whole is filled again when it is back
            if await self._remote.put(key, entry, token) is not Stored.UNAVAILABLE:
                return

    async def _load_or_fall_back(
        self, key: str, token: str, stale: Entry | None, terms_now: Callable[[], Terms]
    ) -> tuple[Entry, Source]:
        try:
            return await self._load_and_put(key, token), "origin"
        except self._failures:
            terms = terms_now()  # what was invalidated during the load is no answer any more
            fallback = self._usable(stale, terms.past_until, terms.stale_if_error_s)
            if fallback is None or fallback.version < terms.least_version:
                raise
            self._events.stale("error")
            return fallback, "stale"

    def _give_back(self, key: str, token: str) -> None:
        self._returned.append((key, token))
        if self._returning is None or self._returning.done():
            # For no caller in particular: it is of nobody's trace.
            self._returning = Context().run(self._background.start, self._return_leases(), to_end=True)

    async def _return_leases(self) -> None:
        """What comes while others are on their way goes together: thousands of loads may be refused in one instant."""
        while self._returned:
            leases = tuple(self._returned)
            self._returned.clear()
            parts = (leases[at : at + RETURNED_TOGETHER] for at in range(0, len(leases), RETURNED_TOGETHER))
            await asyncio.gather(*(self._return_together(part) for part in parts))

    async def _return_together(self, leases: Sequence[tuple[str, str]]) -> None:
        if not await self._remote.release(*leases) and self._remote.is_available:
            await self._remote.release(*leases)  # one lost answer should not bar so many keys

    def _usable(self, entry: Entry | None, newer_than: float, late_s: float) -> Entry | None:
        """The entry, where it is a value, was created after `newer_than`, and is at most so late."""
        if entry is None or entry.payload is None or entry.created_at <= newer_than:
            return None
        return entry if self._now() < entry.created_at + entry.ttl_s + late_s else None
