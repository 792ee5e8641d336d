"""A loader over an origin that answers when the test says so, and over a remote tier in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.cache.coherence import Coherence
from app.cache.entry import Entry
from app.cache.floors import Floors
from app.cache.least import LeastLoads
from app.cache.loader import Loader, Policy, Reading
from app.cache.origin import Loaded
from app.cache.origin import Origin as Loads
from app.cache.protection import Mutex, Protection, Singleflight, Unprotected
from app.cache.recovery import Recovery
from app.cache.remote import RemoteCache, Stored
from app.concurrency.breaker import CircuitBreaker
from app.concurrency.tasks import TaskSet
from app.lab.simulation.recorded_events import RecordedEvents
from tests.concurrency.fake_clock import FakeClock

TTL_S = 30.0
JITTER = 0.1
DEADLINE_S = 10.0

PROTECTIONS: dict[str, Callable[..., Protection]] = {
    "none": lambda **_: Unprotected(),
    "mutex": Mutex,
    "singleflight": Singleflight,
}


class OriginError(Exception):
    """What a load of the test's raises."""


class Origin:
    """Holds values by key. With `held`, loads stay in hand until `release`; each has read its value when it began."""

    def __init__(self) -> None:
        self.values: dict[str, Loaded] = {}
        self.error: Exception | None = None
        self.began = 0
        self.ended = 0
        self.cancelled = 0
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def load(self, key: str) -> Loaded:
        self.began += 1
        found = self.values.get(key, Loaded(None, 0))
        gate = self._open
        try:
            await asyncio.sleep(0)
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        if self.error is not None:
            raise self.error
        return found


class MemoryRemote(RemoteCache):
    """The remote tier's contract in memory. While `down`, it has nothing and takes nothing, as when Redis is gone."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.floors: dict[str, int] = {}
        self.down = False

    async def get(self, key: str) -> Entry | None:
        await asyncio.sleep(0)
        return None if self.down else self.entries.get(key)

    async def put(self, key: str, entry: Entry, token: str = "") -> Stored:
        await asyncio.sleep(0)
        if self.down:
            return Stored.UNAVAILABLE
        stored = self.entries.get(key)
        if self.floors.get(key, 0) > entry.version or (stored is not None and stored.version > entry.version):
            return Stored.PAST
        self.entries[key] = entry
        return Stored.STORED

    async def invalidate(self, key: str, version: int) -> bool:
        await asyncio.sleep(0)
        if not self.down:
            self.floors[key] = max(version, self.floors.get(key, 0))
            stored = self.entries.get(key)
            if stored is not None and stored.version < version:
                del self.entries[key]
        return not self.down


class LoaderRig:
    """`loader` under `mode`; its wall clock and its timer are `clock`. Jitter draws `draw`."""

    def __init__(
        self,
        mode: str,
        *,
        remote: RemoteCache | None = None,
        max_waiters: int | None = None,
        wait_timeout_s: float | None = 10.0,
    ) -> None:
        self.origin = Origin()
        self.memory = MemoryRemote()
        self.events = RecordedEvents()
        self.clock = FakeClock()
        self.draw = 0.0
        self.protection = PROTECTIONS[mode](max_waiters=max_waiters, wait_timeout_s=wait_timeout_s)
        tier = self.memory if remote is None else remote
        self.loader = Loader(
            origin=Loads(
                self.origin.load,
                ttl_s=TTL_S,
                negative_ttl_s=0.0,
                jitter=JITTER,
                deadline_s=DEADLINE_S,
                events=self.events,
                now=self.clock,
                timer=self.clock,
                pick=lambda: self.draw,
            ),
            remote=tier,
            protection=self.protection,
            events=self.events,
            least=LeastLoads(TTL_S, clock=self.clock),
            background=TaskSet(limit=100),
            floors=Floors(max_keys=100, life_s=100.0, skew_s=1.0, clock=self.clock),
            coherence=Coherence(expected=False, grace_s=1.0, clock=self.clock),
            recovery=Recovery(tier, CircuitBreaker(), max_pending=100, fresh_values=list),
            policy=Policy(),
            failures=(OriginError,),
            now=self.clock,
        )

    def reading(self, key: str = "1", callers: int = 1) -> list[asyncio.Task[Reading]]:
        """So many concurrent readers of the key, begun."""
        return [asyncio.create_task(self.loader.read(key)) for _ in range(callers)]

    async def until_loading(self, loads: int) -> None:
        """Until so many loads have begun, and everybody else has gone as far as they get."""
        async with asyncio.timeout(5):
            while self.origin.began < loads:  # noqa: ASYNC110 - the rig must not change what it watches
                await asyncio.sleep(0)
        await settle()


async def settle() -> None:
    """Lets every task that can go on go on, until each waits for something that the test holds."""
    for _ in range(50):
        await asyncio.sleep(0)
