"""One line a call, of which nothing is a client's own words."""

from __future__ import annotations

import logging
import re

import grpc
import pytest

from app.api.grpc.interceptors.access_log import AccessLog
from app.api.grpc.interceptors.stack import CallPolicy
from app.domain.errors import OverloadedError
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from tests.api.grpc.interceptors.rig import Rig, serving

LOGGER = "app.api.grpc.interceptors.access_log"
LINE = re.compile(
    r"method=test\.v1\.Kinds/Bidi kind=bidi_streaming peer=ipv4:127\.0\.0\.1:\d+ client=- status=OK "
    r"duration_ms=\d+\.\d{3} received=2 sent=4"
)


async def _lines(caplog: pytest.LogCaptureFixture, policy: CallPolicy | None) -> list[str]:
    """What is logged of a stream that goes well, a call that fails, and one of a method that is not there."""
    secret = (("authorization", "Bearer hunter2"), ("x-request-id", "forged value"))
    with caplog.at_level(logging.DEBUG, LOGGER):
        async with serving(policy) as rig:
            await rig.ask("Bidi", Question(id=1), Question(id=2), metadata=secret)
            rig.servicer.error = OverloadedError()
            for call in (
                rig.ask("Unary", Question(id=1), metadata=secret),
                rig.ask_of("/forged.v1.X/Y"),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert not re.search("hunter2|forged", "".join(lines))
    return lines


async def test_every_call_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    stream, failed, unknown = await _lines(caplog, CallPolicy(access_log=AccessLog.ALL))
    assert LINE.fullmatch(stream)
    assert " status=RESOURCE_EXHAUSTED " in failed
    assert unknown.startswith("method=unknown ")


async def test_by_default_those_that_fail_are(caplog: pytest.LogCaptureFixture) -> None:
    lines = await _lines(caplog, None)
    assert [re.search(r"status=(\w+)", line)[1] for line in lines] == [  # type: ignore[index]
        "RESOURCE_EXHAUSTED",
        "UNIMPLEMENTED",
    ]


async def test_it_can_be_off(caplog: pytest.LogCaptureFixture) -> None:
    assert await _lines(caplog, CallPolicy(access_log=AccessLog.OFF)) == []


async def test_a_call_whose_message_is_malformed_is_a_line_too(caplog: pytest.LogCaptureFixture, rig: Rig) -> None:
    with caplog.at_level(logging.INFO, LOGGER), pytest.raises(grpc.aio.AioRpcError):
        await rig.ask("Unary", b"\xff")
    [record] = [record for record in caplog.records if record.name == LOGGER]
    assert "status=INVALID_ARGUMENT" in record.getMessage()
