"""What a scenario is given to play on: a fleet under load, writes, a timeline, and ways to wait."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

import asyncpg

from app.loadtest.open_loop import Endpoint, OpenLoop
from app.scenarios.errors import ScenarioError
from app.scenarios.fleet import APP_ROLE, Fleet
from app.scenarios.observer import LoadCount, breakers, gauges
from app.scenarios.options import REQUEST_TIMEOUT_S, Options
from app.scenarios.timeline import Timeline
from app.scenarios.writes import Ledger, Writer

TICK_S = 1.0
POLL_S = 0.02
SCRAPE_POLL_S = 0.1
WARM_AT_A_TIME = 16
LOOK_TIMEOUT_S = 3.0
"""Longest wait for a count by PostgreSQL."""


class Stage:
    """The fleet under load: `options.rate` requests a second on the keys 1 to `options.keys`, and nothing else yet."""

    def __init__(self, fleet: Fleet, options: Options, timeline: Timeline) -> None:
        self.fleet = fleet
        self.options = options
        self.timeline = timeline
        self.keys = range(1, options.keys + 1)
        self.endpoints = [
            Endpoint(number, *fleet.address(number), timeout_s=REQUEST_TIMEOUT_S) for number in range(len(fleet))
        ]
        self.ledger = Ledger()
        self._counts: list[LoadCount] = []
        self.count = self.new_count()
        # At random: in turn, a key would always meet the same replica where their numbers have a common factor.
        pick = random.Random(1)
        self.load = OpenLoop(self.endpoints, options.rate, lambda: pick.choice(self.keys), timeline.record)

    @contextlib.asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Every replica holds every key; the load and the timeline run. At the end all requests have been answered."""
        try:
            await self.warm()
            async with running(self._observe()), running(self.load.run()):
                yield
        finally:
            for count in self._counts:
                count.close()
            for endpoint in self.endpoints:
                endpoint.close()

    def new_count(self) -> LoadCount:
        """Another connection for looking at PostgreSQL, for whoever looks beside others; closed with the stage."""
        count = LoadCount(self.fleet.counting_url, APP_ROLE)
        self._counts.append(count)
        return count

    async def warm(self) -> None:
        """Read every key at every replica. Raises `ScenarioError` where one can't be read."""
        turns = asyncio.Semaphore(WARM_AT_A_TIME)

        async def read(endpoint: Endpoint, key: int) -> None:
            async with turns:
                answer = await endpoint.get(key)
            if answer.error:
                raise ScenarioError(f"key {key} cannot be read before anything is broken: {answer.error}")

        for endpoint in self.endpoints:
            await asyncio.gather(*(read(endpoint, key) for key in self.keys))

    async def phase(self, name: str, seconds: float) -> tuple[float, float]:
        """Let a phase of this name last so long; returns its beginning and end by the monotonic clock."""
        self.timeline.phase = name
        began = time.monotonic()
        await asyncio.sleep(seconds)
        return began, time.monotonic()

    @contextlib.asynccontextmanager
    async def writes(self, rate: float, keys: Sequence[int] | None = None) -> AsyncIterator[Writer]:
        """Writes at this rate, by the app and by SQL in turn, as long as the context lasts."""
        database = await self.database()
        try:
            writer = Writer(self.endpoints, database, self.keys if keys is None else keys, self.ledger)
            async with running(writer.run(rate)):
                yield writer
        finally:
            database.terminate()

    async def database(self) -> asyncpg.Connection:
        """A connection that is not the app's, to be closed by the caller. Raises `ScenarioError`."""
        try:
            return await asyncpg.connect(self.fleet.database_url, timeout=LOOK_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise ScenarioError(f"PostgreSQL cannot be reached: {error}") from error

    async def loads(self) -> int:
        """PostgreSQL's count of loads. Raises `ScenarioError` where it can't be asked."""
        deadline = time.monotonic() + LOOK_TIMEOUT_S
        while time.monotonic() < deadline:
            count = await self.count.ended()
            if count is not None:
                return count
            await asyncio.sleep(POLL_S)
        raise ScenarioError(f"PostgreSQL did not say within {LOOK_TIMEOUT_S:g} s how many loads there were")

    async def all_replicas(self, series: str, value: float, timeout_s: float) -> float | None:
        """How long it takes until a series has this value at every replica; `None` where it takes longer than that."""

        name = series.partition("{")[0]

        async def have() -> bool:
            seen = await asyncio.gather(*(gauges(endpoint, name) for endpoint in self.endpoints))
            return all(one.get(series) == value for one in seen)

        return await until(have, timeout_s, SCRAPE_POLL_S)

    async def _observe(self) -> None:
        before = await self.count.ended()
        while True:
            await asyncio.sleep(TICK_S)
            now, states = await asyncio.gather(self.count.ended(), breakers(self.endpoints))
            # After a crash PostgreSQL counts from 0 again.
            rise = None if now is None else now - before if before is not None and now >= before else now
            before = now
            self.timeline.tick(rise, states)


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on beside the block, and ends with it; where it fails, so does the block, at its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float, poll_s: float = POLL_S) -> float | None:
    """How many seconds it takes until the condition holds; `None` where it takes longer than `timeout_s`."""
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > timeout_s:
            return None
        await asyncio.sleep(poll_s)
    return time.monotonic() - began
