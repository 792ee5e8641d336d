from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from app.api.grpc.interceptors.stack import CallPolicy
from app.client.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
)
from app.client.retries import ATTEMPTS
from app.client.template import Details, Imported, Template
from app.client.templates import TIMEOUT_S, TemplateClient
from app.proto.template.v1 import template_pb2 as pb
from app.testing.server import running_server
from tests.client.fake_service import Answer, Context, FakeService, details, failing, giving, held, serving, to

UPDATED_AT = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)
WELCOME = Template(1, "welcome", "Dear {{name}}", 3, UPDATED_AT)


async def test_a_read_tells_the_template_its_source_and_its_age() -> None:
    answer = details(source=pb.SOURCE_SHARED)
    answer.age.FromMilliseconds(1_250)
    async with serving(FakeService(answers=[giving(answer)])) as service, to(service) as client:
        assert await client.get(1) == Details(WELCOME, "shared", 1.25)
        assert client.ended == {"stable": {"OK": 1}}
    assert service.requests == [pb.GetTemplateDetailsRequest(id=1)]


async def test_a_source_of_a_later_version_of_the_service_is_no_error() -> None:
    answer = details()
    answer.source = 77  # type: ignore[assignment]
    async with serving(FakeService(answers=[giving(answer)])) as service, to(service) as client:
        assert (await client.get(1)).source == "unspecified"


async def test_writes_carry_a_request_id_of_their_own_unless_one_is_given() -> None:
    answers = [giving(pb.CreateTemplateResponse(template=details().template))]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        for request_id in (None, None, "mine"):
            assert (await client.create("welcome", "Dear {{name}}", request_id=request_id)) == WELCOME
    first, second, given = (request.request_id for request in service.requests)
    assert uuid.UUID(first) != uuid.UUID(second)
    assert given == "mine"
    assert service.requests[0].template == pb.NewTemplate(name="welcome", body="Dear {{name}}")


async def test_an_update_sends_the_given_fields_only_and_none_is_refused_before_any_call() -> None:
    answers = [giving(pb.UpdateTemplateResponse(template=details().template))]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        await client.update(1, body="")
        await client.update(1, name="a", body="b", expected_version=0)
        with pytest.raises(ValueError, match="a name, a body or both"):
            await client.update(1)
    one, both = service.requests
    assert (list(one.update_mask.paths), one.template.id, one.HasField("expected_version")) == (["body"], 1, False)
    assert (list(both.update_mask.paths), both.template.name, both.template.body) == (["name", "body"], "a", "b")
    assert both.HasField("expected_version")
    assert str(uuid.UUID(one.request_id)) == one.request_id


async def test_a_deletion_tells_its_version() -> None:
    answers = [giving(pb.DeleteTemplateResponse(version=9))]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        assert await client.delete(1, expected_version=8) == 9
    [request] = service.requests
    assert (request.id, request.expected_version) == (1, 8)
    assert request.request_id


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_what_the_service_could_not_do_is_tried_again_with_the_same_request_id(status: grpc.StatusCode) -> None:
    done = giving(pb.CreateTemplateResponse(template=details().template))
    unavailable = failing(status, "restarting")
    async with serving(FakeService(answers=[unavailable, unavailable, done])) as service, to(service) as client:
        assert await client.create("welcome", "Dear {{name}}") == WELCOME
    assert len({request.request_id for request in service.requests}) == 1
    assert service.calls == 3


async def test_tries_are_bounded_and_then_the_error_is_told() -> None:
    answers = [failing(grpc.StatusCode.UNAVAILABLE, "restarting")]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        with pytest.raises(UnavailableError, match="UNAVAILABLE: restarting"):
            await client.get(1)
        assert client.ended == {"stable": {"UNAVAILABLE": 1}}
    assert service.calls == ATTEMPTS


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNKNOWN,
    ],
)
async def test_what_another_try_would_not_mend_or_make_worse_is_not_tried_again(status: grpc.StatusCode) -> None:
    async with serving(FakeService(answers=[failing(status)])) as service, to(service) as client:
        with pytest.raises(Exception, match=status.name):
            await client.get(1)
    assert service.calls == 1


async def test_a_service_in_trouble_is_not_asked_four_times_as_often_for_long() -> None:
    answers = [failing(grpc.StatusCode.UNAVAILABLE)]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        for _ in range(4):
            await asyncio.gather(*(client.get(1) for _ in range(25)), return_exceptions=True)
    # 100 calls; with half of 100 tokens gone no call is tried again: 50 tries were, and those begun meanwhile.
    assert 100 < service.calls <= 100 + 50 + 25


async def test_a_service_that_is_not_there_is_an_error_in_bounded_time_and_found_when_it_comes() -> None:
    async with serving(FakeService()) as gone:
        pass
    async with to(gone, timeout_s=10) as client:
        with pytest.raises(UnavailableError):
            await client.get(1)
        again = FakeService(answers=[giving(details())])
        async with serving(again, f"127.0.0.1:{gone.port}"), asyncio.timeout(20):
            while True:
                try:
                    assert (await client.get(1)).template == WELCOME
                    break
                except UnavailableError:
                    await asyncio.sleep(0.05)


async def test_a_call_has_a_deadline_without_being_told_one_and_takes_the_one_it_is_told() -> None:
    async with serving(FakeService(answers=[giving(details())])) as service, to(service) as client:
        await client.get(1)
        await client.get(1, timeout_s=60)
    by_default, told = service.time_remaining
    assert by_default is not None
    assert told is not None
    assert 0 < by_default <= TIMEOUT_S * 1.01 < told <= 60 * 1.01  # gRPC rounds up on the way


async def test_a_deadline_that_passes_is_a_timeout_too() -> None:
    never = asyncio.Event()
    async with serving(FakeService(answers=[held(never, giving(details()))])) as service, to(service) as client:
        with pytest.raises(TimeoutError) as caught:
            await client.get(1, timeout_s=0.05)
    assert isinstance(caught.value, DeadlineExceededError)


async def test_a_cancelled_call_is_cancelled_at_the_service_and_stays_a_cancellation() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def wait(request: Any, context: Context) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.set()
            raise

    async with serving(FakeService(answers=[wait])) as service, to(service) as client:
        call = asyncio.create_task(client.get(1))
        await asyncio.wait_for(begun.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(left.wait(), 10)
    assert service.calls == 1


async def test_a_token_goes_along_with_every_call() -> None:
    async with serving(FakeService(answers=[giving(details())])) as service:
        async with to(service, token="s3cret") as client:
            await client.get(1)
        async with to(service) as client:
            await client.get(1)
    with_token, without = service.metadata
    assert with_token["authorization"] == "Bearer s3cret"
    assert "authorization" not in without


async def test_a_client_outside_of_its_context_says_so() -> None:
    client = TemplateClient()
    with pytest.raises(RuntimeError, match="async with"):
        await client.get(1)
    async with client:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        await anext(client.watch([1]))


async def test_an_answer_over_the_limit_is_an_error_and_the_next_call_works() -> None:
    answers = [giving(details(body="x" * 5_000)), giving(details())]
    async with serving(FakeService(answers=answers)) as service, to(service, max_receive_bytes=1_000) as client:
        with pytest.raises(OverloadedError):
            await client.get(1)
        assert (await client.get(1)).template == WELCOME


def taking_all(summary: pb.ImportTemplatesResponse, into: list[pb.ImportTemplatesRequest]) -> Answer:
    async def answer(requests: AsyncIterator[pb.ImportTemplatesRequest], context: Context) -> Any:
        into.extend([request async for request in requests])
        return summary

    return answer


SUMMARY = pb.ImportTemplatesResponse(imported=250, bytes=1_000, first_id=4, last_id=300)


@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
async def test_an_import_goes_in_messages_of_a_hundred_with_the_request_id_in_the_first(kind: str) -> None:
    templates = [(f"n{n}", "b") for n in range(250)]

    async def asynchronous() -> AsyncIterator[tuple[str, str]]:
        for template in templates:
            yield template

    source: Any = {"list": templates, "generator": iter(templates), "async generator": asynchronous()}[kind]
    got: list[pb.ImportTemplatesRequest] = []
    async with serving(FakeService(answers=[taking_all(SUMMARY, got)])) as service, to(service) as client:
        assert await client.import_templates(source) == Imported(250, 1_000, 4, 300)
        assert client.ended == {"stable": {"OK": 1}}
    assert [len(message.templates) for message in got] == [100, 100, 50]
    assert [(t.name, t.body) for message in got for t in message.templates] == templates
    assert str(uuid.UUID(got[0].request_id)) == got[0].request_id
    assert not any(message.request_id for message in got[1:])


async def test_no_message_of_an_import_is_larger_than_the_service_takes() -> None:
    longest = ("😀" * 200, "😀" * 65_536)
    got: list[pb.ImportTemplatesRequest] = []
    async with serving(FakeService(answers=[taking_all(SUMMARY, got)])) as service, to(service) as client:
        await client.import_templates([longest] * 9)
    assert sum(len(message.templates) for message in got) == 9
    assert max(message.ByteSize() for message in got) < 1 << 20


async def test_an_import_of_nothing_is_one_empty_message() -> None:
    got: list[pb.ImportTemplatesRequest] = []
    summary = pb.ImportTemplatesResponse()
    async with serving(FakeService(answers=[taking_all(summary, got)])) as service, to(service) as client:
        assert (await client.import_templates([])).count == 0
    assert len(got) == 1


async def test_what_the_source_of_an_import_raises_is_passed_on_and_the_call_is_cancelled() -> None:
    arrived, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
        try:
            async for _ in requests:
                arrived.set()
            # gRPC's server may end the stream of a cancelled call just before it cancels the method.
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def source() -> AsyncIterator[tuple[str, str]]:
        for _ in range(101):
            yield ("n", "b")
        await arrived.wait()
        raise KeyError("line 102")

    async with serving(FakeService(answers=[answer])) as service, to(service) as client:
        with pytest.raises(KeyError, match="line 102"):
            await client.import_templates(source())
        await asyncio.wait_for(cancelled.wait(), 10)


async def test_a_service_that_refuses_an_import_midway_is_heard_though_the_source_waits() -> None:
    closed = asyncio.Event()

    async def dawdling() -> AsyncIterator[tuple[str, str]]:
        try:
            for _ in range(101):
                yield ("", "b")
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
        async for _ in requests:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "templates[0].name: must not be blank")

    async with serving(FakeService(answers=[answer])) as service, to(service) as client, asyncio.timeout(20):
        with pytest.raises(InvalidArgumentError, match=r"templates\[0\].name"):
            await client.import_templates(dawdling())
    assert closed.is_set()


async def test_the_services_own_status_is_told_though_it_ends_an_import_in_the_middle_of_a_message() -> None:
    """grpc.aio by itself makes INTERNAL of about four in ten of these."""
    asked_for_tokens = CallPolicy(tokens={"somebody": "0123456789abcdef"})
    async with running_server(policy=asked_for_tokens) as server, TemplateClient(server.target) as client:
        for _ in range(50):
            with pytest.raises(UnauthenticatedError):
                await client.import_templates([("n", "b" * 300)] * 3_000)
        assert client.ended == {"stable": {"UNAUTHENTICATED": 50}}


async def test_an_import_is_bounded_in_time_though_the_source_waits() -> None:
    async def dawdling() -> AsyncIterator[tuple[str, str]]:
        yield ("n", "b")
        await asyncio.Event().wait()

    got: list[pb.ImportTemplatesRequest] = []
    async with serving(FakeService(answers=[taking_all(SUMMARY, got)])) as service, to(service) as client:
        with pytest.raises(DeadlineExceededError):
            await client.import_templates(dawdling(), timeout_s=0.1)


async def test_a_source_faster_than_the_service_is_held_back() -> None:
    taken = 0
    go = asyncio.Event()

    async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
        await go.wait()
        async for _ in requests:
            pass
        return SUMMARY

    def source() -> Any:
        nonlocal taken
        for _ in range(2_000):
            taken += 1
            yield ("n", "x" * 10_000)

    async with serving(FakeService(answers=[answer])) as service, to(service) as client:
        importing = asyncio.create_task(client.import_templates(source()))
        before = -1
        while taken != before:  # until it stands still
            before = taken
            await asyncio.sleep(0.2)
        assert taken < 1_000
        go.set()
        assert (await importing).count == 250
    assert taken == 2_000


async def test_an_unknown_template_is_told_as_such() -> None:
    answers = [failing(grpc.StatusCode.NOT_FOUND, "there is no template with id 5")]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.get(5)
    assert (caught.value.text, str(caught.value)) == (
        "there is no template with id 5",
        "NOT_FOUND: there is no template with id 5",
    )
