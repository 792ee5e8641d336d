"""One replica: the real read path, wired as the service wires it, on the simulated world."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any

from app.cache.coherence import Coherence
from app.cache.floors import Floors
from app.cache.lease import LeasedFill
from app.cache.least import LeastLoads
from app.cache.loader import Loader
from app.cache.memory import MemoryCache
from app.cache.origin import LoadDeadlineError, Origin
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache, counts_as_failure
from app.cache.wakeups import Wakeups
from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.concurrency.clock import Clock
from app.concurrency.tasks import TaskSet
from app.lab.scale.network import Link, Network
from app.lab.scale.origin import SimulatedOrigin
from app.lab.scale.redis import SimulatedClient, SimulatedRedis
from app.lab.scale.tally import Tally
from app.lab.simulation.virtual_time import VirtualTimeLoop
from app.read_path_settings import (
    CACHE_FAILURES,
    MAX_BACKGROUND,
    MAX_FLOORS,
    MAX_PENDING,
    bulkhead,
    floor_life_s,
    kept_past_expiry_s,
    policy,
    protection,
    remote_floor_s,
)
from app.settings import Mode, Settings


class Replica:
    """A process. Its wall clock goes `skew_s` wrong; all that it draws is `random`'s."""

    def __init__(
        self,
        loop: VirtualTimeLoop,
        settings: Settings,
        server: SimulatedRedis,
        origin: SimulatedOrigin,
        network: Network,
        tally: Tally,
        random: Random,
        skew_s: float,
    ) -> None:
        self._loop = loop
        self._origin = origin
        self._to_origin = Link(network, random)
        self.skew_s = skew_s
        self.client = SimulatedClient(loop, server, Link(network, random))
        self.calls: dict[asyncio.Task[Any], None] = {}
        """Reads and writes of its callers."""
        full = settings.mode is Mode.FULL

        def now() -> float:
            return loop.wall() + skew_s

        self.memory = MemoryCache(max_entries=settings.l1_max_entries, max_bytes=settings.l1_max_bytes)
        self._coherence = Coherence(expected=full, grace_s=settings.coherence_grace_s, clock=loop.time)
        breaker = CircuitBreaker(
            failures=settings.redis_breaker_failures,
            open_s=settings.redis_breaker_open_s,
            counts=counts_as_failure,
            clock=loop.time,
            on_change=lambda _, new: self._recovery.wake() if new is BreakerState.OPEN else None,
        )
        remote = self._tier = self._remote(settings, breaker, tally)
        self._recovery = Recovery(
            remote,
            breaker,
            max_pending=MAX_PENDING,
            fresh_values=lambda: self._coherence.trusted(self.memory.entries(), now()) if full else [],
        )
        loads = self._loads(settings, tally, random, now)
        background = self._background = TaskSet(limit=MAX_BACKGROUND)
        self._wakeups: Wakeups | None = None
        leased = None
        if settings.mode in (Mode.FLEET, Mode.FULL):
            self._wakeups = Wakeups(
                self.client.as_redis(), remote.channel, ping_s=settings.redis_timeout_s, on_state=tally.wakeups
            )
            leased = LeasedFill(
                remote=remote,
                wakeups=self._wakeups,
                load=loads.load,
                background=background,
                events=tally,
                failures=CACHE_FAILURES,
                now=now,
                token=lambda: f"{random.getrandbits(128):032x}",
            )
        self.loader = Loader(
            origin=loads,
            remote=remote,
            protection=protection(settings),
            events=tally,
            least=LeastLoads(settings.cache_ttl_s, clock=loop.time),
            background=background,
            floors=Floors(
                max_keys=MAX_FLOORS,
                life_s=floor_life_s(settings),
                skew_s=settings.clock_skew_s,
                clock=loop.time,
            ),
            coherence=self._coherence,
            recovery=self._recovery,
            policy=policy(settings),
            failures=CACHE_FAILURES,
            memory=self.memory if full else None,
            leased=leased,
            now=now,
            pick=random.random,
        )

    def start(self) -> None:
        """Begin what runs in the background, and hear of changes, from when the feed has answered."""
        self._origin.listeners[self] = None
        self._loop.call_later(2 * self._to_origin.delay_s(), self._coherence.regained)
        self._recovery.start()
        if self._wakeups is not None:
            self._wakeups.start()

    def announced(self, key: str, version: int) -> float:
        delay_s = self._to_origin.delay_s()
        self._loop.post_at(self._loop.time() + delay_s, self._told, key, version)
        return delay_s

    @property
    def under_way(self) -> int:
        """Calls, and what is done behind them."""
        return len(self.calls) + len(self._background)

    @property
    def asks_redis(self) -> bool:
        """Whether it holds Redis for alive."""
        return self._tier.is_available

    def call(self, work: Any) -> None:
        """Run a caller's read or write."""
        task = self._loop.create_task(work)
        self.calls[task] = None
        task.add_done_callback(self.calls.pop)

    async def crash(self) -> int:
        """Its memory is gone, and its leases stay as they are. How many callers get no answer."""
        self.client.is_cut = True
        lost = list(self.calls)
        for call in lost:
            call.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        await self.aclose()
        return len(lost)

    async def aclose(self) -> None:
        self._origin.listeners.pop(self, None)
        if self._wakeups is not None:
            await self._wakeups.aclose()
        await self._recovery.aclose()
        with contextlib.suppress(TimeoutError):
            await self.loader.aclose(0.0)

    def _told(self, key: str, version: int) -> None:
        if not self.client.is_cut and self._coherence.is_expected:
            self.loader.changed([(key, version)])

    def _remote(self, settings: Settings, breaker: CircuitBreaker, tally: Tally) -> RemoteCache:
        return RemoteCache(
            self.client.as_redis(),
            prefix=settings.cache_key_prefix,
            breaker=breaker,
            timeout_s=settings.redis_timeout_s,
            events=tally,
            concurrent=settings.redis_pool_max,
            lease_s=settings.lease_life_s,
            floor_s=remote_floor_s(settings),
            kept_past_expiry_s=kept_past_expiry_s(settings),
        )

    def _loads(self, settings: Settings, tally: Tally, random: Random, now: Clock) -> Origin:
        full = settings.mode is Mode.FULL
        return Origin(
            self._origin.load,
            ttl_s=settings.cache_ttl_s,
            negative_ttl_s=settings.negative_ttl_s if full else 0.0,
            jitter=settings.cache_ttl_jitter,
            deadline_s=settings.load_deadline_s,
            events=tally,
            bulkhead=bulkhead(settings),
            breaker=CircuitBreaker(
                failures=settings.database_breaker_failures,
                open_s=settings.database_breaker_open_s,
                counts=lambda error: isinstance(error, LoadDeadlineError),
                clock=self._loop.time,
            )
            if full
            else None,
            now=now,
            timer=self._loop.time,
            pick=random.random,
        )
