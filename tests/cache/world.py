"""Several processes of the read path in one: the real code, on a loop of virtual time, over a model of all around it.

The processes read through one Redis and one origin, which announces its changes to each of them late, and not in
order. Feeds are lost, processes die, and the clocks of the processes differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
from dataclasses import dataclass, field
from typing import Any

from app.cache.coherence import Coherence
from app.cache.floors import Floors
from app.cache.lease import LeasedFill
from app.cache.least import LeastLoads
from app.cache.loader import Loader, Policy, Reading
from app.cache.memory import MemoryCache
from app.cache.origin import Loaded, Origin
from app.cache.protection import Mutex, Protection, Singleflight, Unprotected
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache, counts_as_failure
from app.cache.wakeups import Wakeups
from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.concurrency.bulkhead import Bulkhead
from app.concurrency.tasks import TaskSet
from app.lab.simulation.recorded_events import RecordedEvents
from app.lab.simulation.redis_model import ModelClient, ModelServer
from app.lab.simulation.virtual_time import VirtualTimeLoop
from app.read_path_settings import CACHE_FAILURES


class OriginDownError(Exception):
    """The origin can't be reached."""


FAILURES = (OriginDownError, *CACHE_FAILURES)


@dataclass(frozen=True)
class Times:
    """Seconds, all of them; the settings of the processes, and how the world treats them."""

    ttl: float = 8.0
    jitter: float = 0.1
    grace: float = 3.0
    stale_if_error: float = 20.0
    load: float = 0.05
    load_deadline: float = 1.0
    soft_deadline: float = 0.3
    lease: float = 2.0
    redis_latency: float = 0.001
    redis_timeout: float = 0.05
    redis_open: float = 0.5
    bulkhead: float = 0.5
    concurrent: int = 4
    """Loads at a time; not seconds."""
    wait: float = 5.0
    coherence_grace: float = 1.0
    skew: float = 0.2
    most_delay: float = 0.5
    """Of an announcement."""
    unnoticed: float = 1.8
    """How long a feed may be lost before the process notices."""
    beta: float = 1.0


@dataclass(frozen=True)
class Write:
    """A committed change."""

    key: str
    version: int
    committed_at: float


class OriginModel:
    """Values with versions that rise. A load sees what is there when it begins, and takes `load_s`."""

    def __init__(self, loop: VirtualTimeLoop, times: Times) -> None:
        self._loop = loop
        self.load_s = times.load
        self.is_up = True
        self.loads: list[tuple[str, float]] = []
        """Key and beginning of each."""
        self.log: list[Write] = []
        self.values: dict[str, Loaded] = {}
        self.replicas: list[Replica] = []

    async def load(self, key: str) -> Loaded:
        self.loads.append((key, self._loop.time()))
        seen = self.values.get(key, Loaded(None, 0))
        if not self.is_up:
            raise OriginDownError
        await asyncio.sleep(self.load_s)
        if not self.is_up:
            raise OriginDownError
        return seen

    def commit(self, key: str, *, delete: bool, delays: list[float]) -> Write:
        """A change, announced to the n-th replica after the n-th delay, unless its feed is lost by then."""
        version = self.values.get(key, Loaded(None, 0)).version + 1
        self.values[key] = Loaded(None if delete else b"%s=%d" % (key.encode(), version), version)
        write = Write(key, version, self._loop.time())
        self.log.append(write)
        for replica, delay in zip(self.replicas, itertools.cycle(delays), strict=False):
            replica.feed.announce(write, delay)
        return write


class Feed:
    """What one process hears of the changes."""

    def __init__(self, loop: VirtualTimeLoop, origin: OriginModel, loader: Loader, coherence: Coherence) -> None:
        self._loop = loop
        self._origin = origin
        self._loader = loader
        self._coherence = coherence
        self.is_connected = True
        self.losses: list[list[float]] = []
        """Of each: when it began, was noticed, and ended, as far as it has come."""
        self.told: dict[str, int] = {}
        """By key: the newest version that was told."""
        self._under_way: dict[Write, asyncio.TimerHandle] = {}
        self._notice: asyncio.TimerHandle | None = None
        self._position = len(origin.log)
        coherence.regained()

    def announce(self, write: Write, delay: float) -> None:
        if self.is_connected:
            self._under_way[write] = self._loop.call_later(delay, self._arrive, write)

    def lose(self, unnoticed_s: float) -> None:
        """Nothing arrives any more, and in so many seconds the process knows."""
        if not self.is_connected:
            return
        self.is_connected = False
        self.losses.append([self._loop.time(), math.inf, math.inf])
        # What was under way is lost, so the catch-up begins with the earliest of it.
        lost = set(self._under_way)
        self._position = next((i for i, write in enumerate(self._origin.log) if write in lost), len(self._origin.log))
        self.close()
        self._notice = self._loop.call_later(unnoticed_s, self._noticed)

    def catch_up(self, *, knows: bool) -> None:
        """Connected again: what changed since is told, or, unless the feed `knows`, that anything may have."""
        if self.is_connected:
            return
        if self._notice is not None:
            self._notice.cancel()
        missed = self._origin.log[self._position :]
        if knows:
            self._tell(missed)
        else:
            self._loader.everything_changed()
            self._mark(missed)
        self.is_connected = True
        self.losses[-1][2] = self._loop.time()
        self._coherence.regained()

    def is_connected_at(self, time: float) -> bool:
        return not any(began <= time < ended for began, _, ended in self.losses)

    def noticed_before(self, time: float) -> float | None:
        """When the loss in which `time` falls was noticed, if it was by then."""
        return next(
            (noticed for began, noticed, ended in self.losses if began <= time < ended and noticed <= time), None
        )

    def close(self) -> None:
        for timer in (*self._under_way.values(), self._notice):
            if timer is not None:
                timer.cancel()
        self._under_way.clear()

    def _arrive(self, write: Write) -> None:
        del self._under_way[write]
        self._tell([write])

    def _tell(self, writes: list[Write]) -> None:
        self._loader.changed([(write.key, write.version) for write in writes])
        self._mark(writes)

    def _mark(self, writes: list[Write]) -> None:
        for write in writes:
            self.told[write.key] = max(write.version, self.told.get(write.key, 0))

    def _noticed(self) -> None:
        self._coherence.lost()
        self.losses[-1][1] = self._loop.time()


class Replica:
    """One process, wired as the service is. Its clock goes `skew_s` wrong."""

    def __init__(
        self, loop: VirtualTimeLoop, mode: str, times: Times, server: ModelServer, origin: OriginModel, skew_s: float
    ) -> None:
        full = mode == "full"
        self.times = times
        self.started_at = loop.time()
        self.skew_s = skew_s
        self.events = RecordedEvents()
        self.client = ModelClient(server)
        self.background = TaskSet(limit=100)
        self.memory = MemoryCache(max_entries=100, max_bytes=1_000_000) if full else None
        self.coherence = Coherence(expected=full, grace_s=times.coherence_grace, clock=loop.time)
        self.calls: set[asyncio.Task[Any]] = set()
        """Reads and writes of its callers."""
        self.wrote: dict[str, int] = {}
        """By key: the newest version that was written through this process and acknowledged."""
        self._random = random.Random(7)
        self.breaker = CircuitBreaker(
            failures=3,
            open_s=times.redis_open,
            counts=counts_as_failure,
            clock=loop.time,
            on_change=lambda _, new: self.recovery.wake() if new is BreakerState.OPEN else None,
        )

        def now() -> float:
            return loop.wall() + skew_s

        self.remote = RemoteCache(
            self.client.as_redis(),
            prefix="m",
            breaker=self.breaker,
            timeout_s=times.redis_timeout,
            events=self.events,
            lease_s=times.lease,
            floor_s=times.ttl + 2 * times.load_deadline,
            kept_past_expiry_s=max(times.grace, times.stale_if_error) if full else 0.0,
        )
        memory, coherence = self.memory, self.coherence
        self.recovery = Recovery(
            self.remote,
            self.breaker,
            max_pending=1,
            fresh_values=lambda: [] if memory is None else coherence.trusted(memory.entries(), now()),
        )
        loads = Origin(
            origin.load,
            ttl_s=times.ttl,
            negative_ttl_s=times.ttl / 4 if full else 0.0,
            jitter=times.jitter,
            deadline_s=times.load_deadline,
            events=self.events,
            bulkhead=Bulkhead(concurrent=times.concurrent, queued=50, wait_timeout_s=times.bulkhead) if full else None,
            breaker=CircuitBreaker(failures=3, open_s=0.5, clock=loop.time) if full else None,
            now=now,
            timer=loop.time,
            pick=self._random.random,
        )
        self.wakeups: Wakeups | None = None
        leased = None
        if mode in ("fleet", "full"):
            self.wakeups = Wakeups(
                self.client.as_redis(), self.remote.channel, ping_s=times.redis_timeout, on_state=self.events.wakeups
            )
            leased = LeasedFill(
                remote=self.remote,
                wakeups=self.wakeups,
                load=loads.load,
                background=self.background,
                events=self.events,
                failures=FAILURES,
                now=now,
            )
        self.loader = Loader(
            origin=loads,
            remote=self.remote,
            protection=_protection(mode, times),
            events=self.events,
            least=LeastLoads(times.ttl, clock=loop.time),
            background=self.background,
            floors=Floors(
                max_keys=1,
                life_s=times.ttl + times.stale_if_error + 2 * times.load_deadline,
                skew_s=times.skew,
                clock=loop.time,
            ),
            coherence=self.coherence,
            recovery=self.recovery,
            policy=_policy(times) if full else Policy(),
            failures=FAILURES,
            memory=self.memory,
            leased=leased,
            now=now,
            pick=self._random.random,
        )
        self.feed = Feed(loop, origin, self.loader, self.coherence)
        if not full:
            self.feed.is_connected = False  # nothing is announced
        self.recovery.start()
        if self.wakeups is not None:
            self.wakeups.start()

    async def crash(self) -> None:
        """Nothing of it is heard of any more, its leases stay as they are, and who called it gets no answer."""
        self.client.is_cut = True
        await self.aclose()

    async def aclose(self) -> None:
        self.feed.close()
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)
        if self.wakeups is not None:
            await self.wakeups.aclose()
        await self.recovery.aclose()
        with contextlib.suppress(TimeoutError):
            await self.loader.aclose(0.0)


def _protection(mode: str, times: Times) -> Protection:
    if mode == "none":
        return Unprotected()
    if mode == "mutex":
        return Mutex(max_waiters=None, wait_timeout_s=times.wait)
    return Singleflight(max_waiters=None, wait_timeout_s=times.wait)


def _policy(times: Times) -> Policy:
    return Policy(
        grace_s=times.grace,
        stale_if_error_s=times.stale_if_error,
        early_beta=times.beta,
        soft_deadline_s=times.soft_deadline,
    )


@dataclass
class World:
    """All there is, on one loop of virtual time."""

    mode: str
    skews: tuple[float, ...]
    times: Times = field(default_factory=Times)

    def __post_init__(self) -> None:
        self.loop = VirtualTimeLoop()
        self.server = ModelServer(self.loop.time, latency_s=self.times.redis_latency)
        self.origin = OriginModel(self.loop, self.times)
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        for skew_s in self.skews:
            self.origin.replicas.append(self._replica(skew_s))

    def _replica(self, skew_s: float) -> Replica:
        return Replica(self.loop, self.mode, self.times, self.server, self.origin, skew_s)

    @property
    def replicas(self) -> list[Replica]:
        return self.origin.replicas

    def advance(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def read(self, number: int, key: str = "1") -> Reading:
        """What the process answers."""
        return self.loop.run_until_complete(self.replicas[number].loader.read(key))

    def reading(self, number: int, key: str = "1") -> asyncio.Task[Reading]:
        """A read in hand."""
        task = self.loop.create_task(self.replicas[number].loader.read(key))
        self.advance(0.0)
        return task

    def replace(self, number: int) -> None:
        """The process dies, and another takes its place."""

        async def replace() -> None:
            await self.replicas[number].crash()
            self.replicas[number] = self._replica(self.replicas[number].skew_s)

        self.loop.run_until_complete(replace())

    def close(self) -> None:
        async def close() -> list[asyncio.Task[Any]]:
            for replica in self.replicas:
                await replica.aclose()
            return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

        leftovers = self.loop.run_until_complete(close())
        self.loop.close()
        assert not leftovers, leftovers
