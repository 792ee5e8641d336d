from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from app.api.grpc.health import HealthServicer
from app.api.grpc.server import SERVICE, GrpcServer
from tests.api.grpc.conftest import Running
from tests.api.grpc.fake_cache import FakeCache, service_over

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class _Watcher:
    """The server's side of a watch whose client reads only while `reads` is set."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.writing = asyncio.Event()
        self.told: list[HealthCheckResponse.ServingStatus] = []

    async def write(self, response: HealthCheckResponse) -> None:
        self.writing.set()
        await self.reads.wait()
        self.told.append(response.status)


async def test_health_starts_as_not_serving_so_that_readiness_comes_first() -> None:
    server = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await HealthStub(channel).Check(HealthCheckRequest(service=SERVICE), timeout=5)
    assert answer.status == NOT_SERVING
    await server.drain(1)


@pytest.mark.parametrize("service", ["", "template.v1.TemplateService"])
async def test_a_check_follows_readiness(running: Running, service: str) -> None:
    stub = HealthStub(running.channel)
    for serving, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
        running.server.set_serving(serving)
        assert (await stub.Check(HealthCheckRequest(service=service), timeout=5)).status == status


async def test_the_list_holds_every_service(running: Running) -> None:
    answer = await HealthStub(running.channel).List(HealthListRequest(), timeout=5)
    assert {name: health.status for name, health in answer.statuses.items()} == {"": SERVING, SERVICE: SERVING}


async def test_an_unknown_service_is_not_found_by_a_check_and_unknown_to_a_watch(running: Running) -> None:
    stub = HealthStub(running.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(HealthCheckRequest(service="template.v1.Typo"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(HealthCheckRequest(service="template.v1.Typo"), timeout=5)
    assert (await watch.read()).status == SERVICE_UNKNOWN
    watch.cancel()


async def test_a_watch_tells_each_change_and_ends_with_the_drain(running: Running) -> None:
    watch = HealthStub(running.channel).Watch(HealthCheckRequest(service=SERVICE), timeout=20)
    assert (await watch.read()).status == SERVING
    running.server.set_serving(False)
    assert (await watch.read()).status == NOT_SERVING
    running.server.set_serving(True)
    assert (await watch.read()).status == SERVING
    # The limit is far beyond the wait: an open watch must not hold up the drain.
    await asyncio.wait_for(running.server.drain(60), 5)
    assert (await watch.read()).status == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_serving_again_after_the_drain_began_is_not_possible(running: Running) -> None:
    health = HealthServicer([SERVICE])
    health.close()
    health.set_serving(True)
    watcher = _Watcher()
    watcher.reads.set()
    await asyncio.wait_for(health.Watch(HealthCheckRequest(), watcher), 5)
    assert watcher.told == [NOT_SERVING]


async def test_a_watcher_that_does_not_read_misses_what_lies_between_and_never_the_newest() -> None:
    health = HealthServicer([SERVICE])
    watcher = _Watcher()
    watch = asyncio.ensure_future(health.Watch(HealthCheckRequest(), watcher))
    await asyncio.wait_for(watcher.writing.wait(), 5)
    for serving in (True, False, True):
        health.set_serving(serving)
    watcher.writing.clear()
    watcher.reads.set()
    await asyncio.wait_for(watcher.writing.wait(), 5)
    health.close()
    await asyncio.wait_for(watch, 5)
    assert watcher.told == [NOT_SERVING, SERVING, NOT_SERVING]
