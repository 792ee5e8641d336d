"""What goes over the connections of a channel."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.client.errors import DeadlineExceededError
from app.proto.template.v1 import template_pb2 as pb
from tests.client.fake_service import FakeService, details, giving, serving, state, telling, to
from tests.client.line import Line

CREATED = pb.CreateTemplateResponse(template=details().template)


@pytest.mark.parametrize("gzip", [False, True])
async def test_requests_are_compressed_when_asked_for(gzip: bool) -> None:
    line = Line()
    async with (
        serving(FakeService(answers=[giving(CREATED)])) as service,
        line.to(service.port),
        to(line, gzip=gzip) as client,
    ):
        await client.create("n", "x" * 60_000)
    assert service.requests[0].template.body == "x" * 60_000
    assert (line.sent < 10_000) is gzip


async def test_a_server_that_hangs_is_found_by_probes_and_a_watch_goes_on_elsewhere() -> None:
    line = Line()
    often = ("grpc.http2.min_recv_ping_interval_without_data_ms", 10)
    service = FakeService(answers=[telling(state(1, 1)), telling(state(1, 2))])
    probing: Any = {"keepalive_time_s": 0.2, "keepalive_timeout_s": 0.5}
    async with serving(service, "127.0.0.1:0", often), line.to(service.port), to(line, **probing) as client:
        watch = client.watch([1])
        assert (await anext(watch)).version == 1
        following = asyncio.create_task(anext(watch))
        line.silence()
        assert (await asyncio.wait_for(following, 30)).version == 2
        await watch.aclose()
    assert line.connections >= 2


async def test_connections_may_be_lost_between_calls() -> None:
    line = Line()
    async with serving(FakeService(answers=[giving(details())])) as service, line.to(service.port), to(line) as client:
        for _ in range(3):
            await client.get(1, timeout_s=30)
            line.cut()
    assert service.calls == 3


async def test_a_server_that_accepts_and_never_answers_costs_no_more_than_the_deadline() -> None:
    line = Line()
    line.open.clear()
    async with serving(FakeService()) as service, line.to(service.port), to(line, timeout_s=0.3) as client:
        with pytest.raises(DeadlineExceededError):
            await asyncio.wait_for(client.get(1), 30)
        assert client.ended == {"stable": {"DEADLINE_EXCEEDED": 1}}
    assert service.calls == 0
