"""The figures that the project promises, each measured from outside and counted by PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.client.endpoint import Endpoint
from app.client.templates import TemplateClient
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.loadtest.http import Connection
from tests.faults.conftest import Run, Serve
from tests.faults.metrics import scrape
from tests.faults.polling import until

DELAY_MS = 50
CALLERS = 200
AFTER_LOAD_S = 0.150
"""How long after the load's end the slowest of the callers must have its answer."""
JITTER = 0.1

cold_ids = itertools.count(1)


class Wave:
    """So many callers' simultaneous reads of one key, on connections that are open already."""

    def __init__(self, replica: Replica) -> None:
        parts = urlsplit(replica.http_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._replica = replica
        self._connections = [Connection(parts.hostname, parts.port, 20.0) for _ in range(CALLERS)]

    async def open(self) -> None:
        await asyncio.gather(*(connection.open() for connection in self._connections))

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    async def read(self, template_id: int) -> float:
        """Sends them all. How long after the load's end the slowest had its answer, at most.

        The load ended no sooner than its own duration, by the server's histogram, after the first request was sent;
        so the time from there to the last answer is an upper bound, the way to the database included.
        """
        before = (await scrape(self._replica.http_url))("db_load_duration_seconds_sum")
        path = b"/template-details?id=%d" % template_id
        sent = time.monotonic()
        responses = await asyncio.gather(*(connection.get(path) for connection in self._connections))
        assert {response.status for response in responses} == {200}
        load_s = (await scrape(self._replica.http_url))("db_load_duration_seconds_sum") - before
        return max(response.end for response in responses) - (sent + load_s)


async def test_200_callers_of_a_cold_key_load_it_once_and_the_slowest_is_answered_150_ms_after(
    serve: Serve, database_url: str, redis_url: str, loads: Callable[[], Awaitable[int]]
) -> None:
    replica = serve(database_url, redis_url, load_delay_ms=DELAY_MS)
    wave = Wave(replica)
    await wave.open()
    after = []
    for _ in range(7):
        before = await loads()
        after.append(await wave.read(next(cold_ids)))
        assert await loads() - before == 1
    wave.close()
    assert (await scrape(replica.http_url))("db_hits_total") == 7
    print(f"slowest of {CALLERS} after the load's end, ms: {[round(seconds * 1e3) for seconds in after]}")
    assert statistics.median(after) < AFTER_LOAD_S


@pytest.mark.parametrize("over_http", [0, CALLERS // 2], ids=["all over gRPC", "half over HTTP"])
async def test_200_callers_of_a_cold_key_load_it_once_over_grpc_and_mixed(
    serve: Serve, database_url: str, redis_url: str, loads: Callable[[], Awaitable[int]], over_http: int
) -> None:
    replica = serve(database_url, redis_url, load_delay_ms=DELAY_MS)
    parts = urlsplit(replica.http_url)
    assert parts.hostname is not None
    assert parts.port is not None
    connections = [Connection(parts.hostname, parts.port, 20.0) for _ in range(over_http)]
    await asyncio.gather(*(connection.open() for connection in connections))
    endpoint = Endpoint(replica.grpc_target, retries=False)
    async with TemplateClient(endpoint, timeout_s=20.0) as client:
        for _ in range(3):
            before, key = await loads(), next(cold_ids)
            over_grpc = [client.get(key) for _ in range(CALLERS - over_http)]
            path = b"/template-details?id=%d" % key
            found, responses = await asyncio.gather(
                asyncio.gather(*over_grpc), asyncio.gather(*(connection.get(path) for connection in connections))
            )
            assert await loads() - before == 1
            assert {details.template.id for details in found} == {key}
            assert {response.status for response in responses} == ({200} if over_http else set())
    for connection in connections:
        connection.close()
    assert (await scrape(replica.http_url))("db_hits_total") == 3


async def test_unprotected_the_same_200_callers_load_it_nearly_as_often_as_they_are(
    serve: Serve, database_url: str, redis_url: str, loads: Callable[[], Awaitable[int]]
) -> None:
    """All who look into the cache before the first load's end load too; later ones may find what it put."""
    # A load is long against the time in which a busy machine takes 200 requests.
    replica = serve(database_url, redis_url, load_delay_ms=8 * DELAY_MS, mode="none", database_pool_max=50)
    wave = Wave(replica)
    await wave.open()
    counts = []
    for _ in range(3):
        before = await loads()
        await wave.read(next(cold_ids))
        counts.append(await loads() - before)
    wave.close()
    print(f"loads for {CALLERS} callers: {counts}")
    assert (await scrape(replica.http_url))("db_hits_total") == sum(counts)
    assert max(counts) <= CALLERS
    assert statistics.median(counts) >= CALLERS / 2


async def loadtest(
    run: Run, replica: Replica, stack: EmbeddedStack, database_url: str, redis_url: str, *flags: str
) -> dict[str, Any]:
    """The figures of `python -m app loadtest` with these flags, which must have succeeded."""
    database = database_url.rpartition("/")[2]
    counting = ["--database-url", stack.postgres.url("loadtest", database), "--role", "app", "--redis-url", redis_url]
    command = run("loadtest", "--url", replica.http_url, *counting, "--json", "run.json", *flags)
    await until(lambda: not command.is_running, "the load test ends", 60)
    assert command.process.returncode == 0, command.stderr
    figures: dict[str, Any] = json.loads((command.folder / "run.json").read_text())
    return figures


@pytest.mark.slow
async def test_by_default_the_load_test_finds_as_many_loads_as_are_possible_at_least(
    serve: Serve, run: Run, stack: EmbeddedStack, database_url: str, redis_url: str
) -> None:
    replica = serve(database_url, redis_url, load_delay_ms=DELAY_MS)
    figures = await loadtest(run, replica, stack, database_url, redis_url)
    assert (figures["requests"], figures["errors"]) == (7_500, 0)
    assert figures["db_loads"] == figures["db_loads_by_postgres"] == figures["least_loads"] == 220


@pytest.mark.slow
async def test_over_five_expiries_loads_stay_within_jitters_share_of_the_least(
    serve: Serve, run: Run, stack: EmbeddedStack, database_url: str, redis_url: str
) -> None:
    """Lives are shorter than the TTL by up to a tenth, 5 % on average; so are the pauses between loads.

    A key read all the time needs n loads at least and gets at most n / 0.9, rounded up. The run ends soon after an
    expiry without jitter and long before the next one with it, so that the rounding does not decide.
    """
    # Without early refresh, which loads before a life ends by design.
    settings = {"load_delay_ms": 10, "cache_ttl_s": 2, "cache_ttl_jitter": JITTER, "early_refresh_beta": 0}
    replica = serve(database_url, redis_url, **settings)
    flags = ["--duration", "12.4", "--ids", "40", "--concurrency", "8"]
    figures = await loadtest(run, replica, stack, database_url, redis_url, *flags)
    print({name: figures[name] for name in ("requests", "db_loads", "least_loads", "errors")})
    assert figures["errors"] == 0
    assert figures["least_loads"] >= 5 * 40
    assert figures["db_loads"] == figures["db_loads_by_postgres"]
    assert figures["least_loads"] <= figures["db_loads"] <= figures["least_loads"] / (1 - JITTER)
