from __future__ import annotations

import asyncio
import logging

import grpc
import pytest

from app.concurrency.singleflight import TooManyWaitersError, WaitTimeoutError
from app.domain.errors import StorageUnavailableError, TemplateNotFoundError
from app.domain.template import MAX_ID
from app.proto.template.v1.template_pb2 import Source
from tests.api.grpc.conftest import Running
from tests.api.grpc.raw_client import message, raw_client

GET = "/template.v1.TemplateService/GetTemplateDetails"


async def _failure(running: Running, template_id: int) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.get(template_id)
    return caught.value


async def test_a_template_comes_with_its_source_and_age(running: Running) -> None:
    running.cache.source = "shared"
    answer = await running.get(7)
    assert (answer.template.id, answer.template.name, answer.template.version) == (7, "welcome", 3)
    assert answer.source == Source.SOURCE_SHARED
    assert answer.age.ToTimedelta().total_seconds() == 1.25


async def test_the_longest_template_passes(running: Running) -> None:
    running.cache.body = "\N{GRINNING FACE}" * 65_536
    answer = await running.get(1)
    assert answer.template.body == running.cache.body


@pytest.mark.parametrize("template_id", [0, -1, -(2**63)])
async def test_an_id_out_of_range_is_an_invalid_argument_and_reads_nothing(running: Running, template_id: int) -> None:
    error = await _failure(running, template_id)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"id: must be a whole number from 1 to {MAX_ID}"
    assert running.cache.asked == []


async def test_an_empty_message_is_an_invalid_argument(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.channel.unary_unary(GET)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_largest_id_is_read(running: Running) -> None:
    assert (await running.get(MAX_ID)).template.id == MAX_ID


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (TemplateNotFoundError(9), grpc.StatusCode.NOT_FOUND, "there is no template with id 9"),
        (StorageUnavailableError(), grpc.StatusCode.UNAVAILABLE, "the database is unavailable"),
        (
            TooManyWaitersError("5 callers"),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "too many requests are waiting for the same data",
        ),
        (WaitTimeoutError("no value"), grpc.StatusCode.DEADLINE_EXCEEDED, "the answer did not come in time"),
    ],
)
async def test_a_failed_read_ends_the_call_with_its_status_and_text(
    running: Running, error: Exception, status: grpc.StatusCode, text: str
) -> None:
    running.cache.error = error
    failure = await _failure(running, 9)
    assert (failure.code(), failure.details()) == (status, text)


async def test_a_bug_is_internal_without_its_text_and_is_logged(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.cache.error = RuntimeError("SELECT secret FROM accounts")
    with caplog.at_level(logging.ERROR):
        failure = await _failure(running, 1)
    assert (failure.code(), failure.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "SELECT secret" in caplog.text
    assert [record.name for record in caplog.records] == ["app.api.grpc.interceptors.failures"]


async def test_a_caller_that_goes_away_cancels_its_read_and_no_other(running: Running) -> None:
    running.cache.hold = asyncio.Event()
    stays = asyncio.ensure_future(running.get(1))
    await asyncio.wait_for(running.cache.begun.wait(), 5)
    running.cache.begun.clear()
    leaves = asyncio.ensure_future(running.get(2))
    await asyncio.wait_for(running.cache.begun.wait(), 5)
    leaves.cancel()
    await asyncio.wait_for(running.cache.cancelled.wait(), 5)
    running.cache.hold.set()
    assert (await stays).template.id == 1
    assert running.cache.cancellations == [2]


async def test_a_connection_that_is_cut_cancels_its_reads(running: Running) -> None:
    running.cache.hold = asyncio.Event()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        call = channel.unary_unary(GET)(b"\x08\x05", timeout=30)
        await asyncio.wait_for(running.cache.begun.wait(), 5)
    await asyncio.wait_for(running.cache.cancelled.wait(), 5)
    assert call.done()


async def test_a_deadline_that_passes_cancels_the_read(running: Running) -> None:
    """By the server's clock: a client's own may end the call before the read has begun."""
    running.cache.hold = asyncio.Event()
    async with raw_client(running.port) as client:
        number, answer = client.open(GET, [("grpc-timeout", "300m")])
        await client.send(number, message(b"\x08\x01"))
        await asyncio.wait_for(running.cache.begun.wait(), 5)
        await asyncio.wait_for(running.cache.cancelled.wait(), 5)
        await asyncio.wait_for(answer.ended.wait(), 10)
    assert answer.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_message_that_cannot_be_decoded_fails_alone(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.channel.unary_unary(GET)(b"\xff\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == (
        "the request is no template.v1.GetTemplateDetailsRequest: its bytes cannot be decoded as one"
    )
    assert running.cache.asked == []
    assert (await running.get(1)).template.id == 1


async def test_a_message_over_the_limit_is_refused_before_it_is_read(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.channel.unary_unary(GET)(bytes((1 << 20) + 1), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert running.cache.asked == []


async def test_metadata_over_the_limit_is_refused_before_a_method_sees_it(running: Running) -> None:
    call = running.channel.unary_unary(GET)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\x08\x01", metadata=(("padding", "x" * (16 << 10)),), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await call(b"\x08\x01", metadata=(("padding", "x" * (15 << 10)),), timeout=10)
    assert running.cache.asked == [1]


async def test_an_unknown_method_is_unimplemented(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.channel.unary_unary("/template.v1.TemplateService/DropAll")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
