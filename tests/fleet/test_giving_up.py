"""Callers who give up, through the whole path: two replicas in this process, lease and HTTP included."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from starlette.types import Message, Scope

from app.bootstrap.runtime import Runtime, running
from app.cache.entry import FORMAT
from app.domain.errors import DeadlineExceededError
from app.embedded.stack import EmbeddedStack
from app.settings import Mode, Settings
from tests.fleet.database import FleetDatabase

PREFIX = "leave"
SOON_S = 20.0
"""Room for a busy machine, long before the lease would end."""
PATIENT = {
    "redis_timeout_s": 10,
    "lease_s": 120,
    "load_deadline_s": 60,
    "singleflight_wait_timeout_s": 60,
    "database_statement_timeout_s": 60,
}
"""Nobody gives up but by the test's will."""


@dataclass
class Pair:
    """Two replicas on the same servers."""

    first: Runtime
    second: Runtime
    database: FleetDatabase
    redis: Redis

    async def is_leased(self, key: int) -> bool:
        return bool(await self.redis.exists(f"{PREFIX}:{FORMAT}:{{{key}}}:lease"))

    async def is_free(self, key: int) -> bool:
        return not await self.is_leased(key)

    async def until_flying(self, replica: Runtime, key: int, callers: int) -> None:
        """Wait until so many callers wait for the replica's flight; one that has no lease waits for the other's."""

        async def is_so() -> bool:
            cache: Any = replica.service._cache
            flight = cache._loader._protection._protection._group._flights.get(str(key))
            return flight is not None and len(flight.waiters) == callers

        await _until(is_so)
        if replica is self.second:
            await self.until_lease("waited")

    async def until_lease(self, end: str) -> None:
        """Wait until the second replica's try for the lease has ended so."""

        async def is_so() -> bool:
            return self.second.metrics.registry.get_sample_value("cache_lease_total", {"end": end}) == 1

        await _until(is_so)


@pytest.fixture
def key(keys: Iterator[int]) -> int:
    return next(keys)


@pytest.fixture(scope="module")
def keys() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
async def pair(stack: EmbeddedStack, database_url: str) -> AsyncIterator[Pair]:
    async with _pair(stack, database_url) as opened:
        yield opened


@asynccontextmanager
async def _pair(stack: EmbeddedStack, database_url: str, **changed: float) -> AsyncIterator[Pair]:
    values: dict[str, Any] = {
        "mode": Mode.FULL,
        "database_url": database_url,
        "redis_url": stack.redis.url(),
        "cache_key_prefix": PREFIX,
        **PATIENT,
        **changed,
    }
    settings = Settings(**values)
    admin = stack.postgres.url("postgres", database_url.rpartition("/")[2])
    async with (
        running(settings) as first,
        running(settings) as second,
        FleetDatabase.connected(admin) as database,
        Redis.from_url(settings.redis_url) as redis,
    ):
        yield Pair(first, second, database, redis)


async def test_the_caller_who_began_the_load_leaves_and_the_others_get_its_value(pair: Pair, key: int) -> None:
    before = await pair.database.loads()
    async with pair.database.loads_held():
        leader = asyncio.create_task(pair.first.service.read(key))
        await pair.database.until_under_way(1)
        others = [asyncio.create_task(each.service.read(key)) for each in (pair.first, pair.second) for _ in range(10)]
        await pair.until_flying(pair.first, key, 1 + 10)
        await pair.until_flying(pair.second, key, 10)
        leader.cancel()
        await asyncio.wait({leader})
    readings = await asyncio.gather(*others)
    assert {reading.version for reading in readings} == {1}
    assert leader.cancelled()
    assert await pair.database.loads() - before == 1


@pytest.mark.parametrize("beside_the_holder", [True, False])
async def test_a_waiter_whose_time_is_over_leaves_alone(beside_the_holder: bool, pair: Pair, key: int) -> None:
    before = await pair.database.loads()
    async with pair.database.loads_held():
        leader = asyncio.create_task(pair.first.service.read(key))
        await pair.database.until_under_way(1)
        replica = pair.first if beside_the_holder else pair.second
        patient = asyncio.create_task(replica.service.read(key))
        await pair.until_flying(replica, key, 1 + beside_the_holder)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await replica.service.read(key)
    assert (await leader).version == (await patient).version == 1
    assert await pair.database.loads() - before == 1


async def test_all_leave_and_the_query_is_cancelled_and_another_replicas_waiter_takes_over(
    pair: Pair, key: int
) -> None:
    before = await pair.database.loads()
    async with pair.database.loads_held():
        leaving = [asyncio.create_task(pair.first.service.read(key)) for _ in range(10)]
        session = await pair.database.until_under_way(1)
        waiting = asyncio.create_task(pair.second.service.read(key))
        await pair.until_flying(pair.second, key, 1)
        for task in leaving:
            task.cancel()
        left_at = time.monotonic()
        await pair.database.until_under_way(1, but=session)
        took_s = time.monotonic() - left_at
    reading = await waiting
    print(f"taken over {1000 * took_s:.0f} ms after the others left")
    assert reading.source == "origin"
    assert took_s < SOON_S
    assert await pair.database.loads() - before == 1


async def test_all_leave_everywhere_and_neither_query_nor_lease_remains(pair: Pair, key: int) -> None:
    before = await pair.database.loads()
    async with pair.database.loads_held():
        leaving = [asyncio.create_task(pair.first.service.read(key)) for _ in range(5)]
        await pair.database.until_under_way(1)
        leaving += [asyncio.create_task(pair.second.service.read(key)) for _ in range(5)]
        await pair.until_flying(pair.second, key, 5)
        for task in leaving:
            task.cancel()
        await pair.database.until_under_way(0)
        await _until(lambda: pair.is_free(key))
    assert await pair.database.loads() - before == 0
    assert (await pair.first.service.read(key)).source == "origin"


async def test_a_load_that_fails_fails_those_who_wait_for_it_and_bars_nobody_after(
    stack: EmbeddedStack, database_url: str, key: int
) -> None:
    async with _pair(stack, database_url, load_deadline_s=0.1) as pair, pair.database.loads_held():
        reads = [pair.first.service.read(key) for _ in range(10)]
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {DeadlineExceededError}
        assert len({id(outcome) for outcome in outcomes}) == len(outcomes)
        await _until(lambda: pair.is_free(key))
        await pair.database.until_under_way(0)
        for replica in (pair.first, pair.second):  # each tries for itself, and is not held up by the other's failure
            asked_at = time.monotonic()
            with pytest.raises(DeadlineExceededError):
                await replica.service.read(key)
            assert time.monotonic() - asked_at < 0.1 + SOON_S


async def test_a_caller_who_comes_as_the_load_lands_loads_nothing(pair: Pair, key: int) -> None:
    before = await pair.database.loads()
    await pair.first.service.read(key)
    again = await pair.first.service.read(key)
    elsewhere = await pair.second.service.read(key)
    assert (again.source, elsewhere.source) == ("l1", "l2")
    assert await pair.database.loads() - before == 1


async def test_an_http_client_who_hangs_up_leaves_the_others_their_answer(pair: Pair, key: int) -> None:
    before = await pair.database.loads()
    hangs_up = asyncio.Event()
    async with pair.database.loads_held():
        leader = asyncio.create_task(_get(pair.first, key, hangs_up))
        await pair.database.until_under_way(1)
        others = [asyncio.create_task(_get(each, key, asyncio.Event())) for each in (pair.first, pair.second)]
        await pair.until_flying(pair.first, key, 2)
        await pair.until_flying(pair.second, key, 1)
        hangs_up.set()
        await pair.until_flying(pair.first, key, 1)
        await leader
    assert [await other for other in others] == [200, 200]
    assert await pair.database.loads() - before == 1


async def test_the_last_http_client_to_hang_up_ends_the_query_and_the_lease(pair: Pair, key: int) -> None:
    before = await pair.database.loads()
    hang_up = asyncio.Event()
    async with pair.database.loads_held():
        requests = [asyncio.create_task(_get(pair.first, key, hang_up)) for _ in range(5)]
        session = await pair.database.until_under_way(1)
        waiting = asyncio.create_task(_get(pair.second, key, asyncio.Event()))
        await pair.until_flying(pair.second, key, 1)
        hang_up.set()
        left_at = time.monotonic()
        await pair.database.until_under_way(1, but=session)
        assert time.monotonic() - left_at < SOON_S
    assert await waiting == 200
    await asyncio.gather(*requests)
    assert await pair.database.loads() - before == 1


async def _get(replica: Runtime, key: int, hangs_up: asyncio.Event) -> int:
    """A GET's status; 0 where the client was gone before there was one."""
    statuses: list[int] = []
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        for request in requests:
            return request
        await hangs_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and not hangs_up.is_set():
            statuses.append(message["status"])

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/template-details",
        "raw_path": b"/template-details",
        "root_path": "",
        "query_string": f"id={key}".encode(),
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await replica.http_app(scope, receive, send)
    return statuses[0] if statuses else 0


async def _until(condition: Callable[[], Awaitable[bool]], timeout_s: float = SOON_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - what it asks is another process
            await asyncio.sleep(0.002)
