"""The ways: each answers so many requests at once for one cold key, and what is behind it is counted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from app.cache.cluster import ClusterClient
from app.cache.connection import connect
from app.cache.origin import Loaded
from app.cache.protection import Mutex, Protection
from app.concurrency.singleflight import Group
from app.lab.errors import LabError
from app.lab.process import WAIT_S, Mode, Process, Shape
from app.lab.simulation.recorded_events import RecordedEvents

LOAD_S = 0.05
PROCESSES = 4
CONNECTIONS = 8
TTL_S = 600.0
READY_S = 10.0


Way = Callable[[int], Awaitable["Answered"]]
"""Answers so many requests."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How many calls reached the backend, and how long it took until all requests were answered, in ms."""

    calls: int
    elapsed_ms: float


class Backend:
    """Takes `LOAD_S` for each call, any number of them at a time."""

    def __init__(self) -> None:
        self.calls = 0

    async def call(self) -> bytes:
        self.calls += 1
        await asyncio.sleep(LOAD_S)
        return b"value"

    async def load(self, _key: str) -> Loaded:
        """As the read path asks."""
        return Loaded(await self.call(), 1)


async def one_by_one(requests: int) -> Answered:
    """No cache; each request is sent when the one before is answered."""
    backend = Backend()

    async def run() -> None:
        for _ in range(requests):
            await backend.call()

    return await _timed(backend, run)


async def all_at_once(requests: int) -> Answered:
    """No cache; all requests reach a backend that takes any number of them."""
    backend = Backend()
    return await _crowd(backend, requests, backend.call)


async def mutex_alone(requests: int) -> Answered:
    """A lock around the backend and no cache: who gets the lock finds nothing, and calls."""
    backend = Backend()

    async def nothing() -> bytes | None:
        return None

    lock = _mutex()
    return await _crowd(backend, requests, lambda: lock.read("key", nothing, backend.call))


async def mutex_and_cache(requests: int) -> Answered:
    """A lock around look and call: the first one fills the cache, the others find it filled when their turn comes."""
    backend = Backend()
    held: dict[str, bytes] = {}

    async def look() -> bytes | None:
        return held.get("key")

    async def fill() -> bytes:
        held["key"] = await backend.call()
        return held["key"]

    lock = _mutex()
    return await _crowd(backend, requests, lambda: lock.read("key", look, fill))


async def singleflight(requests: int) -> Answered:
    """One flight, no cache."""
    backend = Backend()
    group = Group()
    answered = await _crowd(backend, requests, lambda: group.do("key", backend.call))
    await group.aclose()
    return answered


@dataclass(slots=True)
class Fleet:
    """Read paths of one mode over one Redis, a connection pool each; `ask` sends the requests to them in turn."""

    backend: Backend
    processes: list[Process]

    async def ask(self, requests: int, key: str) -> Answered:
        """All requests at once for one key."""
        before = self.backend.calls
        readers = [self.processes[number % len(self.processes)].loader for number in range(requests)]
        began = time.perf_counter()
        await asyncio.gather(*(reader.read(key) for reader in readers))
        return Answered(self.backend.calls - before, (time.perf_counter() - began) * 1e3)


@contextlib.asynccontextmanager
async def fleet(mode: Mode, redis_url: str, prefix: str, ready_s: float = READY_S) -> AsyncIterator[Fleet]:
    """`PROCESSES` read paths, connected and subscribed. Raises `LabError` where they are not within `ready_s`."""
    backend = Backend()
    processes = [
        Process(_client(redis_url), backend.load, Shape(mode, ttl_s=TTL_S), RecordedEvents(), prefix=prefix)
        for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            process.start()
        await asyncio.gather(*(process.loader.read("warm-up") for process in processes))
        try:
            async with asyncio.timeout(ready_s):
                while not all(process.is_listening for process in processes):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise LabError(f"no subscription at {redis_url} within {ready_s:g} s; is the machine very busy?") from None
        yield Fleet(backend, processes)
    finally:
        for process in processes:
            await process.aclose()


def _client(url: str) -> Redis:
    client = connect(url, connections=CONNECTIONS, timeout_s=READY_S)
    if isinstance(client, ClusterClient):
        raise LabError(f"{url} is a cluster; the lab runs on one server")
    return client


def _mutex() -> Protection:
    return Mutex(max_waiters=None, wait_timeout_s=WAIT_S)


async def _crowd(backend: Backend, requests: int, ask: Callable[[], Awaitable[object]]) -> Answered:
    async def run() -> None:
        await asyncio.gather(*(ask() for _ in range(requests)))

    return await _timed(backend, run)


async def _timed(backend: Backend, run: Callable[[], Awaitable[None]]) -> Answered:
    began = time.perf_counter()
    await run()
    return Answered(backend.calls, (time.perf_counter() - began) * 1e3)
