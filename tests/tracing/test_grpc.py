"""What a trace of a gRPC call holds, as a real receiver gets it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from app.client.endpoint import Endpoint
from app.client.templates import TemplateClient
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from app.telemetry.tracing import span
from tests.tracing.collector import Collector
from tests.tracing.conftest import Start, Traced, metadata, parent, trace_of
from tests.tracing.crowd import held, waiting

CALL = "template.v1.TemplateService/GetTemplateDetails"


def get(service: Traced, template_id: int, caller: int) -> Any:
    stub = TemplateServiceStub(service.grpc)  # type: ignore[no-untyped-call]
    return stub.GetTemplateDetails(GetTemplateDetailsRequest(id=template_id), metadata=metadata(caller), timeout=20)


async def test_a_miss_is_one_trace_in_the_callers_own_and_a_hit_is_the_calls_span_alone(
    start: Start, collector: Collector
) -> None:
    service = await start()
    await get(service, 1, caller=1)  # Redis gets to know the scripts
    await get(service, 7, caller=7)
    await get(service, 7, caller=8)
    await collector.until(lambda: len(collector.named(CALL)) == 3)
    tree = [CALL, ".flight", "..EVALSHA take", "..load", "...SELECT", "..EVALSHA put"]
    assert collector.tree(trace_of(7)) == tree
    root = next(each for each in collector.trace(trace_of(7)) if each.name == CALL)
    assert (root.kind, root.parent_id, root.failed) == ("server", "00000000000000aa", False)
    assert root.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": CALL,
        "cache.source": "origin",
        "rpc.response.status_code": "OK",
    }
    (hit,) = collector.trace(trace_of(8))
    assert (hit.name, hit.attributes["cache.source"]) == (CALL, "l1")


async def test_a_call_that_shares_the_flight_of_a_request_over_http_is_linked_to_it(
    start: Start, collector: Collector, database_url: str
) -> None:
    service = await start()
    async with held(database_url):
        leader = asyncio.create_task(service.http.get("/template-details?id=12", headers=parent(9)))
        async with asyncio.timeout(20):
            while not waiting(service, 12):  # noqa: ASYNC110 - they come through real connections
                await asyncio.sleep(0.005)
            joined = get(service, 12, caller=10)
            while waiting(service, 12) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert (await leader).status_code == 200
    await joined
    await collector.until(lambda: collector.named(CALL) and collector.named("flight"))
    (waiter,), (flight,) = collector.trace(trace_of(10)), collector.named("flight")
    assert flight.trace_id == trace_of(9)
    assert (waiter.attributes["cache.source"], waiter.links) == ("shared", [(flight.trace_id, flight.span_id)])


async def test_the_status_of_a_call_decides_whether_its_span_is_an_error(start: Start, collector: Collector) -> None:
    service = await start(load_delay_ms=2000, load_deadline_s=0.1)
    for template_id, caller in ((0, 20), (5, 21)):
        with pytest.raises(grpc.aio.AioRpcError):
            await get(service, template_id, caller)
    with pytest.raises(grpc.aio.AioRpcError):
        await service.grpc.unary_unary("/template.v1.TemplateService/Brew")(b"", metadata=metadata(22))
    await collector.until(lambda: all(_root(collector, caller) for caller in (20, 21, 22)))
    ends = [
        (root.name, root.attributes["rpc.response.status_code"], root.failed, root.attributes.get("error.type"))
        for root in (_root(collector, caller)[0] for caller in (20, 21, 22))
    ]
    assert ends == [
        (CALL, "INVALID_ARGUMENT", False, None),
        (CALL, "DEADLINE_EXCEEDED", True, "DEADLINE_EXCEEDED"),
        ("unknown", "UNIMPLEMENTED", True, "UNIMPLEMENTED"),
    ]


def _root(collector: Collector, caller: int) -> list[Any]:
    return [each for each in collector.trace(trace_of(caller)) if each.kind == "server"]


async def test_health_checks_make_no_traces(start: Start, collector: Collector) -> None:
    service = await start()
    await HealthStub(service.grpc).Check(HealthCheckRequest(), metadata=metadata(30))
    await get(service, 1, caller=31)
    await collector.until(lambda: collector.named(CALL))
    assert {each.trace_id for each in collector.spans} == {trace_of(31)}


async def test_the_client_library_passes_its_callers_trace_on(start: Start, collector: Collector) -> None:
    """As a service would that calls this one while it answers a call of its own."""
    service = await start()
    calling = await start()  # another service, with a tracer of its own
    tracer = _tracer(calling)
    async with TemplateClient(Endpoint(f"127.0.0.1:{service.served.grpc_port}")) as client:
        await client.get(1)
        with span(tracer, "outer"):
            await client.get(2)
    await collector.until(lambda: collector.named("outer") and len(collector.named(CALL)) == 2)
    (outer,) = collector.named("outer")
    alone, continued = sorted(collector.named(CALL), key=lambda each: each.parent_id)
    assert (continued.trace_id, continued.parent_id) == (outer.trace_id, outer.span_id)
    assert (alone.parent_id, alone.trace_id != outer.trace_id) == ("", True)


def _tracer(service: Traced) -> Any:
    app: Any = service.served.runtime.http_app
    return app._tracer
