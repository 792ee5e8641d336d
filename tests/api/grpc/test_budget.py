"""The caller's time as the budget of what is done for the call."""

from __future__ import annotations

import asyncio

import grpc

from app.api.grpc.interceptors.stack import interceptors
from app.api.grpc.server import GrpcServer
from app.concurrency.budget import time_left
from app.domain.ports import Reading
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from app.telemetry.metrics import Metrics
from tests.api.grpc.fake_cache import FakeCache, service_over


class Noting(FakeCache):
    """Writes down what is left as it is asked."""

    left: list[float | None]

    async def read(self, template_id: int) -> Reading:
        self.left.append(time_left())
        return await super().read(template_id)


async def test_a_call_has_its_callers_time_for_a_budget_and_no_other_calls() -> None:
    cache = Noting()
    cache.left = []
    metrics = Metrics(mode="full", version="0", ttl_s=30)
    server = GrpcServer(service_over(cache), "127.0.0.1", 0, interceptors=interceptors(metrics.calls))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=500)
        await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=50)
        await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1))
        await asyncio.gather(
            *(stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=t) for t in (100, 200, None))
        )
    await server.drain(1.0)
    long, short, without, *together = cache.left
    assert long is not None
    assert short is not None
    assert 0 < short <= 50.5 < long <= 505
    assert without is None
    assert sorted(left is None for left in together) == [False, False, True]
