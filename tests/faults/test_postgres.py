"""PostgreSQL away, hung and back while requests come in: what is cached goes on being served, the rest gets 503."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from tests.faults.conftest import Serve
from tests.faults.load import TIMEOUT_S, Load
from tests.faults.polling import until

WARM = range(1, 21)
SLACK_S = 6.0
"""What a busy machine may add to a bound."""
ACQUIRE_S = STATEMENT_S = 4.0
"""Longer than a server that is well ever stalls."""

numbers = itertools.count(1)
"""For a prefix of each test's own: all its keys are cold."""


@asynccontextmanager
async def cached_and_not(replica: Replica) -> AsyncIterator[tuple[Load, Load]]:
    """A load on ids that are warm in Redis, and one on ids that nobody has read before."""
    async with Load(replica.http_url, itertools.cycle(WARM), callers=1, pause_s=0) as warming:
        await warming.answered(len(WARM))
    fresh = itertools.chain(range(21, 1001), itertools.cycle(range(900, 1001)))
    async with (
        Load(replica.http_url, itertools.cycle(WARM)) as cached,
        Load(replica.http_url, fresh, callers=4, pause_s=0.05) as uncached,
    ):
        yield cached, uncached


@pytest.fixture(scope="module")
def own_stack() -> Iterator[EmbeddedStack]:
    """For the tests of this module to break one after the other: each leaves it whole."""
    with EmbeddedStack() as stack:
        yield stack


@pytest.fixture
def replica(own_stack: EmbeddedStack, serve: Serve) -> Replica:
    return serve(
        own_stack.postgres.url("app"),
        own_stack.redis.url(),
        mode="singleflight",  # what Redis alone is good for; mode `full` is the scenarios' subject
        cache_ttl_s=600,
        cache_key_prefix=f"test-{next(numbers)}",
        redis_timeout_s=10,
        database_connect_timeout_s=ACQUIRE_S,
        database_acquire_timeout_s=ACQUIRE_S,
        database_statement_timeout_s=STATEMENT_S,
    )


async def test_postgres_killed_and_back_under_load(own_stack: EmbeddedStack, replica: Replica) -> None:
    async with cached_and_not(replica) as (cached, uncached):
        await uncached.answered(20)
        uncached.phase = "dying"
        await asyncio.to_thread(own_stack.postgres.kill)
        uncached.phase = "gone"
        await uncached.answered(60)
        await refused_with_retry_after(replica)
        assert (await ready(replica)) == (200, {"cache": "ok", "database": "failed"})

        uncached.phase = "coming"
        await asyncio.to_thread(own_stack.postgres.start)
        await until(lambda: loads_again(replica), "the pool recovers", TIMEOUT_S)
        uncached.phase = "back"
        await uncached.answered(40)
    assert set(cached.outcomes()) == {"200"}
    assert set(uncached.outcomes("before", "back")) == {"200"}
    assert set(uncached.outcomes("gone")) == {"503"}
    assert set(uncached.outcomes()) <= {"200", "503"}
    assert max(answer.seconds for answer in uncached.answers) < ACQUIRE_S + SLACK_S
    assert max(answer.seconds for answer in cached.answers) < SLACK_S


async def test_postgres_restarted_in_good_order_under_load(own_stack: EmbeddedStack, replica: Replica) -> None:
    async with cached_and_not(replica) as (cached, uncached):
        await uncached.answered(20)
        uncached.phase = "restarting"
        for _ in range(3):
            await asyncio.to_thread(own_stack.postgres.restart)
            await uncached.answered(8)
        await until(lambda: loads_again(replica), "the pool recovers", TIMEOUT_S)
        uncached.phase = "back"
        await uncached.answered(40)
    assert set(cached.outcomes()) == {"200"}
    assert set(uncached.outcomes("before", "back")) == {"200"}
    assert set(uncached.outcomes()) <= {"200", "503"}
    assert max(answer.seconds for answer in uncached.answers) < ACQUIRE_S + SLACK_S


async def test_postgres_hung_and_going_on_under_load(own_stack: EmbeddedStack, replica: Replica) -> None:
    async with cached_and_not(replica) as (cached, uncached):
        await uncached.answered(20)
        uncached.phase = "hanging"
        await asyncio.to_thread(own_stack.postgres.suspend)
        uncached.phase = "hung"
        await uncached.answered(8)
        uncached.phase = "going on"
        await asyncio.to_thread(own_stack.postgres.resume)
        await until(lambda: loads_again(replica), "the pool recovers", TIMEOUT_S)
        uncached.phase = "back"
        await uncached.answered(40)
    assert set(cached.outcomes()) == {"200"}
    assert set(uncached.outcomes("before", "back")) == {"200"}
    assert set(uncached.outcomes()) <= {"200", "503"}
    assert uncached.outcomes()["503"] > 0
    # The wait for a connection, the statement's own time with the grace for its answer, and giving the connection back.
    assert max(answer.seconds for answer in uncached.answers) < ACQUIRE_S + STATEMENT_S + 1.5 + SLACK_S
    assert max(answer.seconds for answer in cached.answers) < SLACK_S


async def test_with_both_gone_every_read_is_503_in_time_and_ready_says_so_and_all_heals(
    own_stack: EmbeddedStack, replica: Replica
) -> None:
    async with Load(replica.http_url, itertools.cycle(WARM)) as load:
        await load.answered(100)
        load.phase = "dying"
        await asyncio.to_thread(own_stack.postgres.kill)
        await asyncio.to_thread(own_stack.redis.kill)
        load.phase = "gone"
        await load.answered(100)
        assert (await ready(replica)) == (503, {"cache": "failed", "database": "failed"})
        load.phase = "coming"
        await asyncio.to_thread(own_stack.redis.start)
        await asyncio.to_thread(own_stack.postgres.start)
        await until(lambda: is_ready(replica), "ready", TIMEOUT_S)
        await until(lambda: loads_again(replica), "the pool recovers", TIMEOUT_S)
        load.phase = "back"
        await load.answered(100)
    assert set(load.outcomes("before", "back")) == {"200"}
    assert set(load.outcomes("gone")) == {"503"}
    assert set(load.outcomes()) == {"200", "503"}
    assert max(answer.seconds for answer in load.answers) < ACQUIRE_S + SLACK_S


async def refused_with_retry_after(replica: Replica) -> None:
    async with httpx.AsyncClient(base_url=replica.http_url, timeout=TIMEOUT_S) as client:
        for response in (
            await client.get("/template-details?id=1000"),
            await client.get("/templates"),
            await client.put("/template-details?id=1", json={"name": "a", "body": "b"}),
            await client.post("/template-details", json={"name": "a", "body": "b"}),
            await client.delete("/template-details?id=1"),
        ):
            assert response.status_code == 503, response.request
            assert int(response.headers["Retry-After"]) >= 1
            assert response.headers["Content-Type"] == "application/problem+json"


async def ready(replica: Replica) -> tuple[int, dict[str, str]]:
    async with httpx.AsyncClient(base_url=replica.http_url, timeout=TIMEOUT_S) as client:
        response = await client.get("/ready")
    return response.status_code, response.json()["checks"]


async def is_ready(replica: Replica) -> bool:
    return await ready(replica) == (200, {"cache": "ok", "database": "ok"})


async def loads_again(replica: Replica) -> bool:
    """Whether the database is read; the list of templates is never cached."""
    async with httpx.AsyncClient(base_url=replica.http_url, timeout=TIMEOUT_S) as client:
        return (await client.get("/templates?limit=1")).status_code == 200
