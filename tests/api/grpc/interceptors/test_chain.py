"""Methods of all kinds behind the interceptors: what passes, what is counted, and what cannot be decoded."""

from __future__ import annotations

import asyncio
import re

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from app.api.grpc.statuses import INTERNAL_TEXT
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from tests.api.grpc.interceptors.rig import KINDS, METHODS, Rig, told
from tests.api.grpc.test_statuses import details
from tests.faults.polling import until

MALFORMED = b"\xff\xff\xff"
ANSWERS = {"Unary": [7], "ServerStream": [7, 7], "ClientStream": [12], "Bidi": [7, 7, 5, 5]}
RECEIVED = {"Unary": 1, "ServerStream": 1, "ClientStream": 2, "Bidi": 2}


async def _ask(rig: Rig, kind: str) -> list[int]:
    return await rig.ask(kind, Question(id=7), Question(id=5))


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_is_answered_and_counted_with_its_messages(rig: Rig, kind: str) -> None:
    assert await _ask(rig, kind) == ANSWERS[kind]
    method = METHODS[kind]
    assert rig.value("grpc_requests_total", method=method, status="OK") == 1
    assert rig.value("grpc_request_duration_seconds_count", method=method) == 1
    assert rig.value("grpc_messages_total", method=method, direction="received") == RECEIVED[kind]
    assert rig.value("grpc_messages_total", method=method, direction="sent") == len(ANSWERS[kind])
    assert rig.value("grpc_in_flight_requests") == 0


async def test_a_streams_messages_and_the_stream_itself_are_counted_while_it_lasts(rig: Rig) -> None:
    call = rig.channel.stream_stream(f"/{METHODS['Bidi']}")(timeout=10)
    await call.write(Question(id=1).SerializeToString())
    await call.read()
    await call.read()
    method = METHODS["Bidi"]
    assert rig.value("grpc_in_flight_requests") == 1
    assert rig.value("grpc_messages_total", method=method, direction="received") == 1
    await until(
        lambda: rig.value("grpc_messages_total", method=method, direction="sent") == 2, "both answers are counted"
    )
    assert rig.value("grpc_requests_total", method=method, status="OK") == 0
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_that_cannot_be_decoded_is_an_invalid_argument_and_the_server_goes_on(
    rig: Rig, kind: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask(kind, MALFORMED)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == (
        "the request is no template.v1.GetTemplateDetailsRequest: its bytes cannot be decoded as one"
    )
    assert details(told(caught.value)) == [ErrorInfo(reason="MALFORMED_MESSAGE", domain="template.v1")]
    assert rig.value("grpc_refusals_total", why="malformed_message") == 1
    assert await _ask(rig, kind) == ANSWERS[kind]


@pytest.mark.parametrize("kind", ["ClientStream", "Bidi"])
async def test_a_stream_ends_at_the_message_that_cannot_be_decoded(rig: Rig, kind: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask(kind, Question(id=1), MALFORMED, Question(id=2))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert rig.value("grpc_messages_total", method=METHODS[kind], direction="received") == 2


@pytest.mark.parametrize("path", ["/test.v1.Kinds/Other", "/evil.v1.X/Y", "/x", "/test.v1.Kinds/Unary/"])
async def test_a_method_that_is_not_there_is_counted_under_one_label(rig: Rig, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask_of(path)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert details(told(caught.value)) == [ErrorInfo(reason="UNKNOWN_METHOD", domain="template.v1")]
    assert rig.value("grpc_requests_total", method="unknown", status="UNIMPLEMENTED") == 1
    labels = re.findall(r'[{,]method="([^"]*)"', b"".join(rig.metrics.exposition("")[0]).decode())
    assert set(labels) == {*METHODS.values(), "unknown"}


async def test_a_method_that_is_not_there_is_refused_before_anything_is_sent_to_it(rig: Rig) -> None:
    call = rig.channel.stream_stream("/test.v1.Kinds/Other")(timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_what_answers_is_closed_when_its_caller_goes_away(rig: Rig) -> None:
    rig.servicer.hold = asyncio.Event()
    call = rig.call("ServerStream", Question(id=7))
    await asyncio.wait_for(rig.servicer.begun.wait(), 5)
    call.cancel()
    await asyncio.wait_for(rig.servicer.ended.wait(), 5)


async def test_a_method_that_forgets_to_answer_is_a_bug(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.servicer.forgets = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask("Unary", Question(id=7))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT)
    assert "AttributeError" in caplog.text
