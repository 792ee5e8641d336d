"""What a call ends with when its method raises, of whatever kind it is; and as what it is counted."""

from __future__ import annotations

import asyncio
import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from app.api.grpc.statuses import INTERNAL_TEXT, STATUSES, rpc_status, status_of
from app.domain.errors import DomainError, InvalidInputError, OverloadedError, Violation
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from tests.api.grpc.interceptors.rig import KINDS, METHODS, Context, Rig, told
from tests.api.grpc.raw_client import message, raw_client
from tests.api.grpc.test_statuses import details, instance
from tests.faults.polling import until

DOMAIN_ERRORS = [cls for cls in STATUSES if issubclass(cls, DomainError)]


async def _failure(rig: Rig, kind: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask(kind)
    return caught.value


async def _counted(rig: Rig, kind: str, status: str) -> None:
    """Returns once a call with this status has been counted."""
    await until(lambda: rig.value("grpc_requests_total", method=METHODS[kind], status=status) == 1, f"one {status}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", DOMAIN_ERRORS, ids=lambda cls: cls.__name__)
async def test_every_error_of_the_domain_reaches_the_client_with_its_details(
    rig: Rig, kind: str, cls: type[DomainError]
) -> None:
    error = rig.servicer.error = instance(cls)
    failure = await _failure(rig, kind)
    status = status_of(error)
    assert (failure.code(), failure.details()) == (status, str(error))
    assert told(failure) == rpc_status(error)
    assert rig.value("grpc_requests_total", method=METHODS[kind], status=status.name) == 1


@pytest.mark.parametrize("kind", ["ServerStream", "Bidi"])
async def test_an_error_after_the_first_answers_ends_the_stream_with_its_details(rig: Rig, kind: str) -> None:
    rig.servicer.late_error = OverloadedError(2)
    call = rig.call(kind, Question(id=7))
    assert await call.read() is not grpc.aio.EOF
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert told(caught.value) == rpc_status(OverloadedError(2))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bug_is_internal_without_its_text_and_logged_once_with_its_trace(
    rig: Rig, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.servicer.error = RuntimeError("SELECT secret FROM accounts")
    with caplog.at_level(logging.ERROR):
        failure = await _failure(rig, kind)
    assert (failure.code(), failure.details()) == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT)
    assert details(told(failure)) == [ErrorInfo(reason="INTERNAL", domain="template.v1")]
    [record] = caplog.records
    assert record.getMessage() == f"{METHODS[kind]} failed"
    assert record.exc_info is not None
    assert "SELECT secret" in caplog.text


@pytest.mark.parametrize("unit", ["x", "\N{GRINNING FACE}"])
async def test_a_thousand_violations_do_not_break_the_call(rig: Rig, unit: str) -> None:
    rig.servicer.error = InvalidInputError(*(Violation(f"f{n}", unit * 1_000) for n in range(1_000)))
    failure = await _failure(rig, "Unary")
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    [_, request] = details(told(failure))
    assert isinstance(request, BadRequest)
    assert request.field_violations[0].field == "f0"


async def test_an_errors_text_that_no_header_could_carry_arrives_whole(rig: Rig) -> None:
    rig.servicer.error = InvalidInputError(
        Violation("name", "must not contain \r\ngrpc-status: 0\r\n\N{GRINNING FACE}%")
    )
    failure = await _failure(rig, "Unary")
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == str(rig.servicer.error)


async def test_a_method_may_end_a_call_by_itself(rig: Rig) -> None:
    async def refuse(context: Context) -> None:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is one")

    rig.servicer.does = refuse
    for kind in KINDS:
        failure = await _failure(rig, kind)
        assert (failure.code(), failure.details()) == (grpc.StatusCode.ALREADY_EXISTS, "there is one")
        assert rig.value("grpc_requests_total", method=METHODS[kind], status="ALREADY_EXISTS") == 1


async def test_a_status_that_a_method_only_sets_is_the_one_that_is_counted(rig: Rig) -> None:
    async def set_code(context: Context) -> None:
        context.set_code(grpc.StatusCode.DATA_LOSS)

    rig.servicer.does = set_code
    assert (await _failure(rig, "Unary")).code() is grpc.StatusCode.DATA_LOSS
    assert rig.value("grpc_requests_total", method=METHODS["Unary"], status="DATA_LOSS") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_that_goes_away_is_counted_as_cancelled(rig: Rig, kind: str) -> None:
    rig.servicer.hold = asyncio.Event()
    call = rig.call(kind, Question(id=7))
    await asyncio.wait_for(rig.servicer.begun.wait(), 5)
    call.cancel()
    await until(
        lambda: rig.value("grpc_requests_total", method=METHODS[kind], status="CANCELLED") == 1, "the call is counted"
    )
    assert rig.value("grpc_in_flight_requests") == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_that_passes_is_counted_as_such(rig: Rig, kind: str) -> None:
    """By the server's clock alone: a client's own runs while it connects, and may end a call that no method has yet."""
    rig.servicer.hold = asyncio.Event()
    async with raw_client(rig.port) as client:
        number, answer = client.open(f"/{METHODS[kind]}", [("grpc-timeout", "300m")])
        await client.send(number, message(Question(id=7).SerializeToString()))
        await asyncio.wait_for(rig.servicer.begun.wait(), 5)
        await asyncio.wait_for(answer.ended.wait(), 10)
    assert answer.status == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    await until(
        lambda: rig.value("grpc_requests_total", method=METHODS[kind], status="DEADLINE_EXCEEDED") == 1,
        "the call is counted",
    )
