"""A server on a real port, and a real client. Everything here must hold on asyncio's own event loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import grpc
import pytest
import uvloop

from app.api.grpc.server import GrpcServer
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest, GetTemplateDetailsResponse
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.api.grpc.fake_cache import FakeCache, service_over


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@dataclass
class Running:
    """`channel` is open to `server`, which answers from `cache`."""

    cache: FakeCache
    server: GrpcServer
    port: int
    channel: grpc.aio.Channel

    def get(
        self, template_id: int, timeout: float | None = 10.0
    ) -> grpc.aio.UnaryUnaryCall[GetTemplateDetailsRequest, GetTemplateDetailsResponse]:
        stub = TemplateServiceStub(self.channel)  # type: ignore[no-untyped-call]
        return stub.GetTemplateDetails(GetTemplateDetailsRequest(id=template_id), timeout=timeout)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    cache = FakeCache()
    server = GrpcServer(service_over(cache), "127.0.0.1", 0)
    port = await server.start()
    server.set_serving(True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Running(cache, server, port, channel)
    await server.drain(1.0)
