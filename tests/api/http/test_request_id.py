"""The id of a request: taken or made, given back to who sent one, and in every line that is logged for it."""

from __future__ import annotations

import logging
import re

import pytest

from app.telemetry.request_id import REQUEST_ID
from tests.api.http.conftest import Api

KEY = "x-request-id"
MADE = re.compile(r"[0-9a-f]{16}")


@pytest.mark.parametrize("target", ["/template-details?id=1", "/template-details?id=99", "/nowhere", "/ready"])
async def test_a_valid_one_goes_back_whatever_the_answer(api: Api, target: str) -> None:
    response = await api.client.get(target, headers={KEY: "0F-1.b_2"})
    assert response.headers.get_list(KEY) == ["0F-1.b_2"]


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a;b", "é", "%0d%0a"])
async def test_one_that_is_not_valid_is_replaced(api: Api, sent: str) -> None:
    response = await api.client.get("/template-details?id=1", headers={KEY.encode(): sent.encode()})
    [returned] = response.headers.get_list(KEY)
    assert MADE.fullmatch(returned)


async def test_who_sends_none_gets_none(api: Api) -> None:
    assert KEY not in (await api.client.get("/template-details?id=1")).headers


async def test_what_is_logged_for_a_request_knows_its_id(api: Api) -> None:
    known: list[str | None] = []

    class Recording(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            known.append(REQUEST_ID.get())

    log, handler = logging.getLogger("app.api.http.edge"), Recording()
    log.addHandler(handler)
    api.cache.error = RuntimeError("a bug")
    try:
        assert (await api.client.get("/template-details?id=1", headers={KEY: "mine"})).status_code == 500
    finally:
        log.removeHandler(handler)
    assert known == ["mine"]
