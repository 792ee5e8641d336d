"""The server that others test against, as they would use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from app.api.grpc.interceptors.stack import CallPolicy
from app.api.grpc.options import ServerOptions
from app.client.endpoint import Endpoint
from app.client.templates import TemplateClient
from app.domain.errors import StorageUnavailableError
from app.domain.template import TemplateDraft
from app.proto.template.v1 import template_pb2 as pb
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from app.testing.server import RunningServer, running_server
from app.testing.templates import InMemoryTemplates


@pytest.fixture
async def templates() -> AsyncIterator[InMemoryTemplates]:
    memory = InMemoryTemplates(TemplateDraft("welcome", "Dear {{name}}"))
    yield memory
    await memory.aclose()


@pytest.fixture
async def server(templates: InMemoryTemplates) -> AsyncIterator[RunningServer]:
    async with running_server(templates.service()) as running:
        yield running


@pytest.fixture
def stub(server: RunningServer) -> TemplateServiceStub:
    return TemplateServiceStub(server.channel)  # type: ignore[no-untyped-call]


async def _status(call: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    code = caught.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


async def test_it_serves_and_says_so(server: RunningServer) -> None:
    answer = await HealthStub(server.channel).Check(HealthCheckRequest(), timeout=10)
    assert answer.status == HealthCheckResponse.SERVING


async def test_without_a_service_it_has_no_templates() -> None:
    async with running_server() as server:
        stub = TemplateServiceStub(server.channel)  # type: ignore[no-untyped-call]
        call = stub.GetTemplateDetails(pb.GetTemplateDetailsRequest(id=1), timeout=10)
        assert await _status(call) is grpc.StatusCode.NOT_FOUND
        made = await stub.CreateTemplate(pb.CreateTemplateRequest(template=pb.NewTemplate(name="a")), timeout=10)
        assert made.template.id == 1


async def test_templates_are_read_and_written_under_the_rules_of_the_real_ones(stub: TemplateServiceStub) -> None:
    got = await stub.GetTemplateDetails(pb.GetTemplateDetailsRequest(id=1), timeout=10)
    assert (got.template.name, got.template.version) == ("welcome", 1)
    new = pb.Template(id=1, name="hello")
    updated = await stub.UpdateTemplate(
        pb.UpdateTemplateRequest(template=new, update_mask={"paths": ["name"]}, expected_version=1), timeout=10
    )
    assert (updated.template.name, updated.template.body, updated.template.version) == ("hello", "Dear {{name}}", 2)
    stale = stub.DeleteTemplate(pb.DeleteTemplateRequest(id=1, expected_version=1), timeout=10)
    assert await _status(stale) is grpc.StatusCode.ABORTED
    assert (await stub.DeleteTemplate(pb.DeleteTemplateRequest(id=1), timeout=10)).version == 3
    gone = stub.GetTemplateDetails(pb.GetTemplateDetailsRequest(id=1), timeout=10)
    assert await _status(gone) is grpc.StatusCode.NOT_FOUND


async def test_a_repeated_write_gets_the_first_answer_and_another_one_is_refused(stub: TemplateServiceStub) -> None:
    request = pb.CreateTemplateRequest(template=pb.NewTemplate(name="a"), request_id="r")
    first = await stub.CreateTemplate(request, timeout=10)
    assert await stub.CreateTemplate(request, timeout=10) == first
    other = pb.CreateTemplateRequest(template=pb.NewTemplate(name="b"), request_id="r")
    assert await _status(stub.CreateTemplate(other, timeout=10)) is grpc.StatusCode.ALREADY_EXISTS


async def test_a_watcher_is_told_of_each_write(stub: TemplateServiceStub) -> None:
    watch = stub.WatchTemplates(pb.WatchTemplatesRequest(ids=[1]), timeout=20)
    assert (await watch.read()).state.version == 1
    await stub.UpdateTemplate(pb.UpdateTemplateRequest(template=pb.Template(id=1, name="b")), timeout=10)
    told = (await watch.read()).state
    assert (told.version, told.template.name) == (2, "b")
    await stub.DeleteTemplate(pb.DeleteTemplateRequest(id=1), timeout=10)
    told = (await watch.read()).state
    assert (told.version, told.HasField("template")) == (3, False)
    watch.cancel()


async def test_an_import_makes_all_or_none(stub: TemplateServiceStub) -> None:
    good, bad = pb.NewTemplate(name="ä", body="12"), pb.NewTemplate(name=" ")

    async def importing(*templates: pb.NewTemplate) -> pb.ImportTemplatesResponse:
        requests = [pb.ImportTemplatesRequest(templates=[template]) for template in templates]
        answer = await stub.ImportTemplates(iter(requests), timeout=10)
        assert isinstance(answer, pb.ImportTemplatesResponse)
        return answer

    assert await _status(importing(good, bad)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await importing(good, good) == pb.ImportTemplatesResponse(imported=2, bytes=8, first_id=2, last_id=3)


async def test_an_outage_can_be_had(templates: InMemoryTemplates, stub: TemplateServiceStub) -> None:
    templates.error = StorageUnavailableError()
    call = stub.GetTemplateDetails(pb.GetTemplateDetailsRequest(id=1), timeout=10)
    assert await _status(call) is grpc.StatusCode.UNAVAILABLE
    templates.error = None
    assert (await stub.GetTemplateDetails(pb.GetTemplateDetailsRequest(id=1), timeout=10)).template.id == 1


async def test_limits_and_tokens_can_be_tried() -> None:
    options, policy = ServerOptions(max_receive_bytes=1024), CallPolicy(tokens={"me": "t" * 32})
    async with running_server(options=options, policy=policy) as server:
        create = TemplateServiceStub(server.channel).CreateTemplate  # type: ignore[no-untyped-call]
        small = pb.CreateTemplateRequest(template=pb.NewTemplate(name="a"))
        assert await _status(create(small, timeout=10)) is grpc.StatusCode.UNAUTHENTICATED
        large = pb.CreateTemplateRequest(template=pb.NewTemplate(name="a", body="x" * 2000))
        token = [("authorization", f"Bearer {'t' * 32}")]
        assert await _status(create(large, metadata=token, timeout=10)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_client_library_speaks_to_it_and_it_leaves_no_task_behind(templates: InMemoryTemplates) -> None:
    before = asyncio.all_tasks()
    async with running_server(templates.service()) as server, TemplateClient(Endpoint(server.target)) as client:
        assert (await client.get(1)).template.name == "welcome"
    # gRPC's own, of the process, which are made with the first server or channel, wait for calls to come or end.
    left = {task for task in asyncio.all_tasks() - before if "cygrpc" not in repr(task)}
    assert left == set()
