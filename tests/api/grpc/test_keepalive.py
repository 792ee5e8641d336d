"""Clients that are gone without a word."""

from __future__ import annotations

import asyncio

import grpc

from app.api.grpc.options import ServerOptions
from app.api.grpc.server import GrpcServer
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.api.grpc.fake_cache import FakeCache, service_over
from tests.client.line import Line


async def test_a_client_that_hangs_is_found_by_probes_and_its_calls_end() -> None:
    cache, line = FakeCache(hold=asyncio.Event()), Line()
    options = ServerOptions(keepalive_time_s=0.2, keepalive_timeout_s=0.5)
    server = GrpcServer(service_over(cache), "127.0.0.1", 0, options=options)
    port = await server.start()
    async with line.to(port), grpc.aio.insecure_channel(f"127.0.0.1:{line.port}") as channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        call = asyncio.ensure_future(stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1)))
        await asyncio.wait_for(cache.begun.wait(), 10)
        line.silence()
        await asyncio.wait_for(cache.cancelled.wait(), 30)
        call.cancel()
    await server.drain(1.0)
