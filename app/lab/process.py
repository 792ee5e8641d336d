"""One process' read path, wired as the service's is, over whatever Redis, origin and time it is given."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis

from app.cache.coherence import Coherence
from app.cache.events import CacheEvents
from app.cache.floors import Floors
from app.cache.lease import LeasedFill
from app.cache.least import LeastLoads
from app.cache.loader import Loader, Policy
from app.cache.memory import MemoryCache
from app.cache.origin import Load, LoadDeadlineError, Origin
from app.cache.protection import Mutex, Protection, Singleflight, Unprotected
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache, counts_as_failure
from app.cache.wakeups import Wakeups
from app.concurrency.breaker import CircuitBreaker
from app.concurrency.clock import Clock, monotonic, wall
from app.concurrency.singleflight import WaitTimeoutError
from app.concurrency.tasks import TaskSet

FAILURES = (LoadDeadlineError, WaitTimeoutError)
WAIT_S = 60.0
"""More than anything here takes: a run in which that is reached has failed."""
REDIS_TIMEOUT_S = 2.0
CLOSE_S = 1.0

Mode = Literal["none", "mutex", "singleflight", "fleet", "full"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the parts are told: seconds, but for `jitter`, a share of the TTL, and `beta`, XFetch's.

    `lease` takes the lease away from the modes that have one.
    """

    mode: Mode
    ttl_s: float
    jitter: float = 0.0
    beta: float = 1.0
    grace_s: float = 0.0
    lease: bool = True


class Process:
    """To be started on the running loop, and closed. `pick` draws from [0, 1) for jitter and early refreshes."""

    def __init__(
        self,
        client: Redis,
        load: Load,
        shape: Shape,
        events: CacheEvents,
        *,
        prefix: str = "lab",
        now: Clock = wall,
        timer: Clock = monotonic,
        pick: Callable[[], float] = random.random,
    ) -> None:
        full = shape.mode == "full"
        background = TaskSet(limit=1_000)
        breaker = CircuitBreaker(counts=counts_as_failure, clock=timer)
        self.remote = RemoteCache(
            client,
            prefix=prefix,
            breaker=breaker,
            timeout_s=REDIS_TIMEOUT_S,
            events=events,
            floor_s=shape.ttl_s,
            kept_past_expiry_s=shape.grace_s,
        )
        self._recovery = Recovery(self.remote, breaker, max_pending=1, fresh_values=list)
        self.origin = Origin(
            load,
            ttl_s=shape.ttl_s,
            negative_ttl_s=0.0,
            jitter=shape.jitter,
            deadline_s=WAIT_S,
            events=events,
            now=now,
            timer=timer,
            pick=pick,
        )
        self._wakeups = Wakeups(client, self.remote.channel, ping_s=REDIS_TIMEOUT_S, on_state=events.wakeups)
        self.leased = LeasedFill(
            remote=self.remote,
            wakeups=self._wakeups,
            load=self.origin.load,
            background=background,
            events=events,
            failures=FAILURES,
            now=now,
        )
        self._has_lease = shape.lease and shape.mode in ("fleet", "full")
        self.loader = Loader(
            origin=self.origin,
            remote=self.remote,
            protection=_protection(shape.mode),
            events=events,
            least=LeastLoads(shape.ttl_s, clock=timer),
            background=background,
            floors=Floors(max_keys=1, life_s=shape.ttl_s, skew_s=0.0, clock=timer),
            coherence=Coherence(expected=False, grace_s=0.0, clock=timer),
            recovery=self._recovery,
            policy=Policy(grace_s=shape.grace_s, early_beta=shape.beta) if full else Policy(),
            failures=FAILURES,
            memory=MemoryCache(max_entries=1_000, max_bytes=10_000_000) if full else None,
            leased=self.leased if self._has_lease else None,
            now=now,
            pick=pick,
        )

    def start(self) -> None:
        """Begin what runs in the background: the subscription to wake-ups, where there is a lease to wait for."""
        self._recovery.start()
        if self._has_lease:
            self._wakeups.start()

    @property
    def is_listening(self) -> bool:
        """Whether it would be woken by another's put, or has nobody to wait for."""
        return self._wakeups.is_up or not self._has_lease

    async def aclose(self) -> None:
        """End what runs in the background, and the connection."""
        await self._wakeups.aclose()
        await self._recovery.aclose()
        await self.loader.aclose(CLOSE_S)
        await self.remote.aclose()


def _protection(mode: Mode) -> Protection:
    if mode == "none":
        return Unprotected()
    if mode == "mutex":
        return Mutex(max_waiters=None, wait_timeout_s=WAIT_S)
    return Singleflight(max_waiters=None, wait_timeout_s=WAIT_S)
