"""Told to end under load, a replica loses no request; and however it is told, it ends in time."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from app.bootstrap.runtime import CLOSE_TIMEOUT_S
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.faults.callers import Callers
from tests.faults.conftest import Serve
from tests.faults.held import HELD, HeldLoads
from tests.faults.metrics import scrape
from tests.faults.polling import until

DELAY_S = 5.0
"""How long a replica that has been told to end goes on, where a test has much to see meanwhile."""
LISTENER_S = 0.1 + 0.2 + 0.1
"""From the last new connection to the port's closing, from there to that of idle ones, and the server's own tick."""
SLACK_S = 10.0
"""What a busy machine may add to a bound. What is not to be waited for takes longer."""
LONG_MS = 40_000
CALL_TIMEOUT_S = 60.0
REDIS_TIMEOUT_S = 0.25


def told(replica: Replica) -> float:
    """Tells it to end; when that was (monotonic seconds)."""
    now = time.monotonic()
    os.kill(replica.pid, signal.SIGTERM)
    return now


async def ended(replica: Replica, since: float) -> float:
    """Seconds from `since` until the process was gone, its exit status being 0."""
    await until(lambda: not replica.is_running, "the process ends", 30)
    took = time.monotonic() - since
    assert replica.stop() == 0
    return took


async def http_get(http_url: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=http_url, timeout=CALL_TIMEOUT_S) as client:
        return await client.get(path)


async def test_told_to_end_under_load_it_answers_every_request_that_was_sent(
    database_url: str, redis_url: str, serve: Serve
) -> None:
    """Callers use connections as long as they may, open new ones up to the end, and are cut off by nothing else."""
    replica = serve(
        database_url, redis_url, load_delay_ms=20, cache_ttl_s=0.2, drain_delay_s=DELAY_S, drain_timeout_s=60
    )
    callers = Callers(replica.http_url, itertools.cycle(range(1, 1001)), 20)
    running = asyncio.create_task(callers.run())
    await until(lambda: len(callers.answered) > 200, "load")
    assert (await http_get(replica.http_url, "/ready")).status_code == 200

    told_at = told(replica)
    await until(lambda: not_ready(replica.http_url), "/ready turns")
    draining = time.monotonic()
    served = await http_get(replica.http_url, "/template-details?id=1")
    assert served.status_code == 200
    assert served.headers["Connection"] == "close"
    scraped = await scrape(replica.http_url)
    assert scraped("draining") == 1
    assert scraped("event_loop_tasks") > 1

    assert await ended(replica, told_at) < DELAY_S + LISTENER_S + SLACK_S
    await running
    assert callers.lost == []
    assert callers.refused == 20  # all of them, at the very end
    assert {answer.status for answer in callers.answered} == {200}
    late = [answer for answer in callers.answered if answer.sent > draining]
    assert late
    assert all(answer.closes for answer in late)
    assert max(answer.sent for answer in callers.answered) > told_at + DELAY_S / 2  # a busy machine answers in spurts


async def test_requests_in_flight_over_http_and_grpc_finish_long_after_the_port_is_closed(
    database_url: str, redis_url: str, serve: Serve, held: HeldLoads
) -> None:
    replica = serve(database_url, redis_url, **HELD, drain_timeout_s=60)
    async with held, two_long_requests(replica, 401, 402) as (over_http, over_grpc):
        told(replica)
        await until(lambda: is_refused(replica.http_url), "the port is closed")
        assert not over_http.done()
        assert not over_grpc.done()
        await held.let_go()
        let_go_at = time.monotonic()
        assert (await over_http).status_code == 200
        assert (await over_grpc).template.id == 402
    await ended(replica, let_go_at)


async def test_grpc_health_turns_first_and_calls_are_served_meanwhile(
    database_url: str, redis_url: str, serve: Serve
) -> None:
    replica = serve(database_url, redis_url, drain_delay_s=DELAY_S)
    async with grpc.aio.insecure_channel(replica.grpc_target) as channel:
        watch = HealthStub(channel).Watch(HealthCheckRequest(), timeout=CALL_TIMEOUT_S)
        assert (await watch.read()).status == HealthCheckResponse.SERVING
        told_at = told(replica)
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        assert (await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=DELAY_S)).template.id == 1
        assert await watch.read() is grpc.aio.EOF
    await ended(replica, told_at)


async def test_requests_that_do_not_finish_in_time_are_given_up_at_the_drain_timeout(
    database_url: str, redis_url: str, serve: Serve
) -> None:
    replica = serve(database_url, redis_url, **HELD, load_delay_ms=LONG_MS, drain_timeout_s=1)
    async with two_long_requests(replica, 403, 404) as (over_http, over_grpc):
        assert 1.0 <= await ended(replica, told(replica)) < LISTENER_S + 1.0 + SLACK_S
        response = await over_http
        assert (response.status_code, response.json()["code"]) == (503, "shutting_down")
        assert response.headers["Retry-After"] == "1"
        assert await over_grpc.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


async def test_clients_that_never_finish_their_requests_do_not_hold_up_the_end(
    database_url: str, redis_url: str, serve: Serve
) -> None:
    replica = serve(database_url, redis_url, http_receive_timeout_s=60, drain_timeout_s=1)
    parts = urlsplit(replica.http_url)
    head = (
        b"PUT /template-details?id=1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    )
    writers = []
    for sent in (b"", head[:20], head, head + b"{"):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(sent)
        writers.append(writer)
    await until(lambda: in_flight(replica.http_url, 2), "the requests are there")
    took = await ended(replica, told(replica))
    for writer in writers:
        writer.close()
    assert took < LISTENER_S + 1.0 + SLACK_S


async def test_a_database_that_hangs_does_not_hold_up_the_end(own_stack: EmbeddedStack, serve: Serve) -> None:
    replica = serve(own_stack.postgres.url("app"), own_stack.redis.url(), **HELD, drain_timeout_s=1.5)
    await asyncio.to_thread(own_stack.postgres.suspend)
    async with five_requests(replica) as requests:
        # The time for draining, and that for each of the two to close.
        assert await ended(replica, told(replica)) < LISTENER_S + 1.5 + 2 * CLOSE_TIMEOUT_S + SLACK_S
        assert {response.status_code for response in await asyncio.gather(*requests)} == {503}
    await asyncio.to_thread(own_stack.postgres.resume)


async def test_a_redis_that_hangs_does_not_hold_up_the_end(own_stack: EmbeddedStack, serve: Serve) -> None:
    settings = {**HELD, "redis_timeout_s": REDIS_TIMEOUT_S, "drain_timeout_s": 60}
    replica = serve(own_stack.postgres.url("app"), own_stack.redis.url(), **settings)
    await asyncio.to_thread(own_stack.redis.suspend)
    async with HeldLoads(own_stack.postgres.url("postgres", "app")) as held, five_requests(replica) as requests:
        told(replica)
        await until(lambda: is_refused(replica.http_url), "the port is closed")
        await held.let_go()
        let_go_at = time.monotonic()
        assert {response.status_code for response in await asyncio.gather(*requests)} == {200}
        # A look and a put each, and the time for each of the two to close.
        assert await ended(replica, let_go_at) < 2 * REDIS_TIMEOUT_S + 2 * CLOSE_TIMEOUT_S + SLACK_S
    await asyncio.to_thread(own_stack.redis.resume)


@pytest.mark.parametrize("phase", ["while still serving", "while draining"])
async def test_the_second_signal_ends_it_at_once(database_url: str, redis_url: str, serve: Serve, phase: str) -> None:
    delay_s = 60 if phase == "while still serving" else 0
    settings = {**HELD, "load_delay_ms": LONG_MS, "drain_delay_s": delay_s, "drain_timeout_s": 60}
    replica = serve(database_url, redis_url, **settings)
    async with two_long_requests(replica, 405, 406):
        os.kill(replica.pid, signal.SIGINT)
        if phase == "while still serving":
            await until(lambda: not_ready(replica.http_url), "/ready turns")
        else:
            await until(lambda: is_refused(replica.http_url), "the port is closed")
        assert replica.is_running
        assert await ended(replica, told(replica)) < SLACK_S


@asynccontextmanager
async def five_requests(replica: Replica) -> AsyncIterator[list[asyncio.Task[httpx.Response]]]:
    """Of cold keys, over HTTP; all are there."""
    requests = [asyncio.create_task(http_get(replica.http_url, f"/template-details?id={key}")) for key in range(1, 6)]
    await until(lambda: in_flight(replica.http_url, 5), "the requests are there")
    yield requests
    await asyncio.gather(*requests, return_exceptions=True)


@asynccontextmanager
async def two_long_requests(replica: Replica, http_id: int, grpc_id: int) -> AsyncIterator[tuple[Any, Any]]:
    """One over HTTP, as a task, and a call over gRPC; both have come as far as the database."""
    async with grpc.aio.insecure_channel(replica.grpc_target) as channel:
        over_http = asyncio.create_task(http_get(replica.http_url, f"/template-details?id={http_id}"))
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        over_grpc = stub.GetTemplateDetails(GetTemplateDetailsRequest(id=grpc_id), timeout=CALL_TIMEOUT_S)
        await until(lambda: missed(replica.http_url, 2), "the requests are there")
        yield over_http, over_grpc
        over_grpc.cancel()
        await asyncio.gather(over_http, return_exceptions=True)


async def missed(http_url: str, keys: int) -> bool:
    return (await scrape(http_url))("cache_misses_total") == keys


async def not_ready(http_url: str) -> bool:
    return (await http_get(http_url, "/ready")).status_code == 503


async def in_flight(http_url: str, requests: int) -> bool:
    return (await scrape(http_url))("http_in_flight_requests") == requests


async def is_refused(http_url: str) -> bool:
    parts = urlsplit(http_url)
    try:
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (ConnectionRefusedError, socket.gaierror):
        return True
    writer.close()
    return False
