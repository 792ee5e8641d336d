"""The id of a call: where it comes from, where it goes back, and that it stands in the call's log lines."""

from __future__ import annotations

import logging
import re
from typing import Any

import grpc
import pytest

from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from app.telemetry.request_id import REQUEST_ID
from tests.api.grpc.interceptors.rig import KINDS, Rig

KEY = "x-request-id"
MADE = re.compile(r"[0-9a-f]{16}")


def _ids(metadata: Any) -> list[str]:
    return [value for key, value in metadata or () if key == KEY]


async def _returned(rig: Rig, kind: str, *sent: str) -> tuple[list[str], list[str]]:
    """Those in the initial and in the trailing metadata."""
    call = rig.call(kind, Question(id=7), metadata=tuple((KEY, each) for each in sent))
    await rig.answers(call)
    return _ids(await call.initial_metadata()), _ids(await call.trailing_metadata())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sent", ["a", "0F-1.b_2", "x" * 64])
async def test_a_valid_one_is_taken_and_goes_back_at_once_and_at_the_end(rig: Rig, kind: str, sent: str) -> None:
    assert await _returned(rig, kind, sent) == ([sent], [sent])


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a;b", "../etc", "{}", "%0a", "a=b"])
async def test_one_that_is_not_valid_is_replaced(rig: Rig, sent: str) -> None:
    initial, trailing = await _returned(rig, "Unary", sent)
    assert initial == trailing
    assert MADE.fullmatch(initial[0])


async def test_two_of_them_are_replaced(rig: Rig) -> None:
    initial, [made] = await _returned(rig, "Unary", "one", "two")
    assert initial == [made]
    assert MADE.fullmatch(made)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_is_made_goes_back_too_and_is_another_for_every_call(rig: Rig, kind: str) -> None:
    (first_initial, [first]), (_, [second]) = await _returned(rig, kind), await _returned(rig, kind)
    assert MADE.fullmatch(first)
    assert first != second
    assert first_initial == ([] if kind == "Unary" else [first])


async def test_a_call_that_fails_has_one_beside_its_details(rig: Rig) -> None:
    rig.servicer.error = RuntimeError("a bug")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.ask("Unary", Question(id=7), metadata=((KEY, "mine"),))
    assert _ids(caught.value.trailing_metadata()) == ["mine"]
    assert {key for key, _ in caught.value.trailing_metadata()} == {KEY, "grpc-status-details-bin"}


async def test_what_is_logged_for_a_call_knows_its_id_and_nothing_else_does(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    known: list[tuple[str, str | None]] = []

    class Recording(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            known.append((record.name.rpartition(".")[2], REQUEST_ID.get()))

    handler = Recording()
    rig.servicer.error = RuntimeError("a bug")
    log = logging.getLogger("app.api.grpc.interceptors")
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO), pytest.raises(grpc.aio.AioRpcError):
            await rig.ask("Unary", Question(id=7), metadata=((KEY, "mine"),))
    finally:
        log.removeHandler(handler)
    assert known == [("failures", "mine"), ("access_log", "mine")]
    assert REQUEST_ID.get() is None
