"""Redis away, hung and back while requests come in: none of them fails, and all heals by itself."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable

from app.concurrency.breaker import BreakerState
from app.embedded.redis import EmbeddedRedis
from tests.faults.conftest import Serve
from tests.faults.load import Load
from tests.faults.metrics import scrape
from tests.faults.polling import until

MODE = "singleflight"
"""Without a memory of its own before Redis; mode `full` is the scenarios' subject."""
REDIS_TIMEOUT_S = 0.25


async def breaker_is(http_url: str, state: BreakerState) -> bool:
    return (await scrape(http_url))("breaker_state", name="redis") == state.value


async def has_new_hits(http_url: str, before: float) -> bool:
    return (await scrape(http_url))("cache_hits_total", tier="l2") > before


async def hits(http_url: str) -> float:
    return (await scrape(http_url))("cache_hits_total", tier="l2")


async def test_redis_killed_and_back_under_load_fails_no_request(
    database_url: str, own_redis: Callable[..., EmbeddedRedis], serve: Serve
) -> None:
    redis = own_redis()
    replica = serve(database_url, redis.url(), mode=MODE, redis_breaker_open_s=0.3)
    async with Load(replica.http_url, itertools.cycle(range(1, 41))) as load:
        await until(lambda: has_new_hits(replica.http_url, 100), "warm")

        load.phase = "killed"
        await asyncio.to_thread(redis.kill)
        await until(lambda: breaker_is(replica.http_url, BreakerState.OPEN), "the breaker opens")
        load.phase = "gone"
        before = await hits(replica.http_url)
        await load.answered(300)
        assert await hits(replica.http_url) == before

        load.phase = "back"
        await asyncio.to_thread(redis.start)
        await until(lambda: breaker_is(replica.http_url, BreakerState.CLOSED), "the breaker closes")
        await until(lambda: has_new_hits(replica.http_url, before + 100), "hits again")
    assert set(load.outcomes()) == {"200"}
    assert {answer.source for answer in load.of("gone")} <= {"origin", "shared"}


async def test_redis_hung_and_going_on_under_load_fails_no_request_and_slows_few(
    database_url: str, own_redis: Callable[..., EmbeddedRedis], serve: Serve
) -> None:
    redis = own_redis()
    replica = serve(database_url, redis.url(), mode=MODE, redis_timeout_s=REDIS_TIMEOUT_S, redis_breaker_open_s=0.5)
    async with Load(replica.http_url, itertools.cycle(range(1, 41))) as load:
        await until(lambda: has_new_hits(replica.http_url, 100), "warm")

        load.phase = "hanging"
        await asyncio.to_thread(redis.suspend)
        load.phase = "unanswered"
        await load.answered_each(2)  # so nobody waits for Redis, which says nothing before it goes on
        await until(lambda: breaker_is(replica.http_url, BreakerState.OPEN), "the breaker opens")
        load.phase = "hung"
        before = await hits(replica.http_url)
        await load.answered(600)

        load.phase = "going on"
        await asyncio.to_thread(redis.resume)
        await until(lambda: breaker_is(replica.http_url, BreakerState.CLOSED), "the breaker closes")
        await until(lambda: has_new_hits(replica.http_url, before + 100), "hits again")
    assert set(load.outcomes()) == {"200"}
    # With the breaker open only a probe's callers pay a look's timeout, and a put's.
    slow = [answer for answer in load.of("hung") if answer.seconds > REDIS_TIMEOUT_S / 2]
    assert len(slow) < len(load.of("hung")) / 10


async def test_a_replica_that_could_not_run_for_a_while_does_not_take_redis_for_gone(
    database_url: str, redis_url: str, serve: Serve
) -> None:
    """Stopped for longer than the timeout, it finds the answers to all that it asked before, unread."""
    timeout_s = 2.0  # a Redis that could not run for as long is none of this test's business
    replica = serve(database_url, redis_url, mode=MODE, redis_timeout_s=timeout_s, cache_ttl_s=3600)
    async with Load(replica.http_url, itertools.cycle(range(1, 41)), callers=30, pause_s=0.002) as load:
        await until(lambda: has_new_hits(replica.http_url, 100), "warm")
        for _ in range(2):
            os.kill(replica.pid, signal.SIGSTOP)
            await asyncio.sleep(1.2 * timeout_s)
            os.kill(replica.pid, signal.SIGCONT)
            await load.answered(100)
    scraped = await scrape(replica.http_url)
    assert scraped("cache_errors_total", operation="get") == 0
    assert scraped("db_hits_total") == 40
    assert set(load.outcomes()) == {"200"}


async def test_a_replica_starts_and_serves_without_redis_and_finds_it_when_it_comes(
    database_url: str, own_redis: Callable[..., EmbeddedRedis], serve: Serve
) -> None:
    redis = own_redis()
    redis.kill()
    replica = serve(database_url, redis.url(), mode=MODE, redis_breaker_open_s=0.2)
    async with Load(replica.http_url, itertools.cycle(range(1, 11))) as load:
        await until(lambda: breaker_is(replica.http_url, BreakerState.OPEN), "the breaker opens")
        await asyncio.to_thread(redis.start)
        await until(lambda: has_new_hits(replica.http_url, 50), "hits")
    assert set(load.outcomes()) == {"200"}
