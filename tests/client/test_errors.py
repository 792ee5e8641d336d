from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, DebugInfo, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from app.client.errors import DETAILS_KEY, ERRORS, CallError, call_error
from tests.client.fake_service import FakeService, failing, serving, to


def error(status: grpc.StatusCode, text: str, *trailing: tuple[str, str | bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=text)


def packed(*details: object) -> bytes:
    status = Status(code=3, message="bad")
    for detail in details:
        status.details.add().Pack(detail)
    return bytes(status.SerializeToString())


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
def test_every_status_has_an_error_that_carries_it(status: grpc.StatusCode) -> None:
    made = call_error(error(status, "what happened"))
    assert type(made) is ERRORS.get(status, CallError)
    assert (made.status, made.text, str(made)) == (status, "what happened", f"{status.name}: what happened")
    assert (made.details, made.reason, made.violations, made.retry_after_s) == ((), "", (), None)


async def test_details_come_decoded_over_the_wire() -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="name", description="must not be blank")])
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(1_500)
    details = packed(ErrorInfo(reason="INVALID_INPUT", domain="template.v1"), bad, retry)
    answer = failing(grpc.StatusCode.INVALID_ARGUMENT, "name: must not be blank", ((DETAILS_KEY, details),))
    async with serving(FakeService(answers=[answer])) as service, to(service) as client:
        with pytest.raises(CallError) as caught:
            await client.create(" ", "")
    assert caught.value.reason == "INVALID_INPUT"
    assert caught.value.violations == (("name", "must not be blank"),)
    assert caught.value.retry_after_s == 1.5
    assert len(caught.value.details) == 3


def test_details_of_unknown_kinds_and_malformed_ones_are_left_out_and_hide_nothing() -> None:
    status = Status()
    status.details.add().Pack(DebugInfo(detail="secret"))
    status.details.add().CopyFrom(Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff\xff"))
    status.details.add().CopyFrom(Any(type_url="no url at all", value=b"x"))
    status.details.add().Pack(ErrorInfo(reason="R"))
    made = call_error(error(grpc.StatusCode.ABORTED, "", (DETAILS_KEY, status.SerializeToString())))
    assert (made.reason, len(made.details)) == ("R", 1)
    for garbage in (b"\xff\xff\xff", b"", "a text"):
        assert call_error(error(grpc.StatusCode.ABORTED, "t", (DETAILS_KEY, garbage))).details == ()


def test_the_text_is_one_line_whatever_was_said() -> None:
    assert str(call_error(error(grpc.StatusCode.UNKNOWN, "a\n  b\r\nc"))) == "UNKNOWN: a b c"
    assert str(call_error(error(grpc.StatusCode.UNKNOWN, ""))) == "UNKNOWN"
