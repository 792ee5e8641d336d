"""One conversation of SyncTemplates: order, bounds and ends, each forced."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from app.api.grpc.sync import MAX_UNANSWERED, Conversation
from app.domain.errors import OverloadedError, StoppingError, StorageUnavailableError
from app.domain.ports import Reading
from app.proto.template.v1.template_pb2 import SyncTemplatesRequest, SyncTemplatesResponse
from tests.api.grpc.fake_cache import FakeReading, payload_of
from tests.api.grpc.fake_context import SlowClient
from tests.watching.source import Rig


class Reads:
    """Gets wait for those ids that are held; `error` is raised by all."""

    def __init__(self) -> None:
        self.held: dict[int, asyncio.Event] = {}
        self.error: Exception | None = None
        self.begun = 0
        self.cancelled = 0

    async def state(self, template_id: int) -> Reading:
        self.begun += 1
        try:
            if template_id in self.held:
                await self.held[template_id].wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return FakeReading(payload_of(template_id))


class Talk:
    """A conversation under way."""

    def __init__(self, rig: Rig, client: SlowClient, reads: Reads) -> None:
        ready = asyncio.Event()
        context: Any = client
        self.client = client
        self.task = asyncio.ensure_future(
            Conversation(reads, rig.hub.open(ready), ready, context).run(client.requests())
        )


def get(tag: int, template_id: int) -> SyncTemplatesRequest:
    return SyncTemplatesRequest(tag=tag, get=SyncTemplatesRequest.Get(id=template_id))


def subscribe(tag: int, *ids: int) -> SyncTemplatesRequest:
    return SyncTemplatesRequest(tag=tag, subscribe=SyncTemplatesRequest.Subscribe(ids=ids))


def unsubscribe(tag: int, *ids: int) -> SyncTemplatesRequest:
    return SyncTemplatesRequest(tag=tag, unsubscribe=SyncTemplatesRequest.Unsubscribe(ids=ids))


def told(answer: SyncTemplatesResponse) -> tuple[int, str, int, int]:
    """Tag, kind, and of a state the id and the version."""
    return answer.tag, answer.WhichOneof("answer") or "", answer.state.state.id, answer.state.state.version


async def test_gets_are_answered_as_they_come_whatever_the_order_of_the_requests() -> None:
    async with Rig() as rig:
        reads = Reads()
        reads.held[1] = asyncio.Event()
        talk = Talk(rig, SlowClient([get(10, 1), get(20, 2)]), reads)
        assert told(await talk.client.read()) == (20, "state", 2, 3)
        reads.held[1].set()
        assert told(await talk.client.read()) == (10, "state", 1, 3)
        await talk.task


async def test_a_caller_who_sends_and_never_reads_is_read_no_further_than_the_bound() -> None:
    async with Rig() as rig:
        requests = [get(tag, 1) for tag in range(1, 10 * MAX_UNANSWERED)]
        requests[1::3] = [subscribe(tag, 2) for tag in range(1, len(requests[1::3]) + 1)]
        talk = Talk(rig, SlowClient(requests), Reads())
        await rig.settle()
        taken = talk.client.sent
        assert MAX_UNANSWERED <= taken <= MAX_UNANSWERED + 1
        for _ in range(5):
            await talk.client.read()
        await rig.settle()
        assert taken < talk.client.sent <= taken + 5
        talk.task.cancel()
        await asyncio.wait({talk.task})


async def test_a_bounded_number_of_gets_is_under_way_and_an_end_cancels_them() -> None:
    async with Rig() as rig:
        reads = Reads()
        reads.held[1] = asyncio.Event()
        talk = Talk(rig, SlowClient([get(tag, 1) for tag in range(10 * MAX_UNANSWERED)]), reads)
        await rig.settle()
        assert reads.begun == MAX_UNANSWERED
        talk.task.cancel()
        await asyncio.wait({talk.task})
        assert reads.cancelled == MAX_UNANSWERED
        assert len(rig.hub) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_done_comes_first_then_the_states_and_after_an_unsubscription_nothing() -> None:
    async with Rig() as rig:
        rig.source.versions.update({1: 4, 2: 5})
        requests = [subscribe(7, 1, 2), unsubscribe(8, 1), subscribe(9, 1)]
        talk = Talk(rig, SlowClient(requests, half_closes=False), Reads())
        answers = [told(await talk.client.read())]
        while (0, "state", 2, 5) not in answers or (0, "state", 1, 4) not in answers[-2:]:
            answers.append(told(await talk.client.read()))
            await rig.settle()
        tags = [answer[0] for answer in answers if answer[1] == "done"]
        assert tags == [7, 8, 9]
        assert answers[0] == (7, "done", 0, 0)
        between = answers[answers.index((8, "done", 0, 0)) : answers.index((9, "done", 0, 0))]
        assert all(answer[2] != 1 for answer in between)
        assert (0, "state", 1, 4) in answers[answers.index((9, "done", 0, 0)) :]
        rig.change(1, 2)
        assert {told(await talk.client.read()) for _ in range(2)} == {(0, "state", 1, 5), (0, "state", 2, 6)}
        talk.task.cancel()
        await asyncio.wait({talk.task})


async def test_changes_that_come_while_done_of_an_unsubscription_waits_to_be_written_are_not_told_after_it() -> None:
    async with Rig() as rig:
        requests = [subscribe(1, 1), unsubscribe(2, 1)]
        talk = Talk(rig, SlowClient(requests, half_closes=False), Reads())
        found = [told(await talk.client.read())]
        while found[-1][:2] != (2, "done"):
            rig.change(1)
            await rig.settle()
            found.append(told(await talk.client.read()))
        rig.change(1)
        await rig.settle()
        reading = asyncio.ensure_future(talk.client.read())
        await rig.settle()
        assert not reading.done()
        for task in (reading, talk.task):
            task.cancel()
        await asyncio.wait({reading, talk.task})


async def test_news_are_told_between_the_answers_to_a_caller_who_never_stops_asking() -> None:
    async with Rig() as rig:
        requests = [subscribe(1, 1), *(get(tag, 2) for tag in range(2, 10_000))]
        talk = Talk(rig, SlowClient(requests), Reads())
        assert told(await talk.client.read()) == (1, "done", 0, 0)
        rig.change(1)
        await rig.settle()
        found = [told(await talk.client.read()) for _ in range(6)]
        assert (0, "state", 1, 1) in found
        talk.task.cancel()
        await asyncio.wait({talk.task})


async def test_after_a_half_close_what_was_asked_is_answered_and_the_call_ends() -> None:
    async with Rig() as rig:
        reads = Reads()
        reads.held[9] = asyncio.Event()
        rig.source.held.add(2)
        talk = Talk(rig, SlowClient([subscribe(1, 1, 2), get(2, 9)]), reads)
        assert told(await talk.client.read()) == (1, "done", 0, 0)
        assert told(await talk.client.read()) == (0, "state", 1, 0)
        await rig.settle()
        reads.held[9].set()
        assert told(await talk.client.read()) == (2, "state", 9, 3)
        await rig.settle()
        assert not talk.task.done()
        rig.source.let_go(2)
        assert told(await talk.client.read()) == (0, "state", 2, 0)
        await asyncio.wait_for(talk.task, 10)
        assert (len(rig.hub), rig.hub.ids) == (0, 0)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (SyncTemplatesRequest(tag=5), "action: must be get, subscribe or unsubscribe"),
        (subscribe(5), "ids: must be 1 to 1000 different ones, are 0"),
        (subscribe(5, *range(1, 1_002)), "ids: must be 1 to 1000 different ones, are 1001"),
        (subscribe(5, 3, 0), "ids[1]: must be a whole number from 1 to 9223372036854775807"),
    ],
    ids=["no action", "no ids", "too many ids", "an impossible id"],
)
async def test_a_request_that_is_wrong_gets_its_error_and_the_stream_goes_on(
    request_: SyncTemplatesRequest, text: str
) -> None:
    async with Rig() as rig:
        talk = Talk(rig, SlowClient([request_, get(6, 1)]), Reads())
        answers = {answer.tag: answer for answer in [await talk.client.read(), await talk.client.read()]}
        assert answers[5].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert answers[5].error.message == text
        assert len(answers[5].error.details) == 2
        assert told(answers[6]) == (6, "state", 1, 3)
        await talk.task


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (StorageUnavailableError(), grpc.StatusCode.UNAVAILABLE, "the database is unavailable"),
        (OverloadedError(), grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests are waiting for the same data"),
        (ValueError("secret"), grpc.StatusCode.INTERNAL, "internal error"),
    ],
    ids=["database away", "overload", "bug"],
)
async def test_a_get_that_fails_is_answered_by_its_status(
    error: Exception, code: grpc.StatusCode, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Rig() as rig:
        reads = Reads()
        reads.error = error
        talk = Talk(rig, SlowClient([get(1, 1)]), reads)
        answer = await talk.client.read()
        assert (answer.tag, answer.error.code, answer.error.message) == (1, code.value[0], text)
        await talk.task
        assert ("a get in a stream failed" in caplog.text) == (code is grpc.StatusCode.INTERNAL)


async def test_a_drain_lets_gets_finish_then_ends_the_stream() -> None:
    async with Rig() as rig:
        reads = Reads()
        reads.held[1] = asyncio.Event()
        talk = Talk(rig, SlowClient([subscribe(1, 5), get(2, 1)], half_closes=False), reads)
        assert told(await talk.client.read()) == (1, "done", 0, 0)
        assert told(await talk.client.read()) == (0, "state", 5, 0)
        await rig.settle()
        rig.hub.close()
        await rig.settle()
        assert not talk.task.done()
        reads.held[1].set()
        assert told(await talk.client.read()) == (2, "state", 1, 3)
        with pytest.raises(StoppingError):
            await asyncio.wait_for(talk.task, 10)


async def test_a_stream_of_requests_that_breaks_ends_the_conversation_by_its_error() -> None:
    class Broken(SlowClient):
        async def requests(self):  # type: ignore[no-untyped-def]
            yield get(1, 1)
            raise ConnectionResetError("gone")

    async with Rig() as rig:
        talk = Talk(rig, Broken([]), Reads())
        await talk.client.read()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(talk.task, 10)
        assert len(rig.hub) == 0
