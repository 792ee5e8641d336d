from __future__ import annotations

import pytest

from app.domain.template import MAX_ID
from tests.api.http.conftest import Api
from tests.api.http.fake_ports import template
from tests.api.http.problem import problem_of

BAD_IDS = {
    "missing": "",
    "another name": "ID=1",
    "empty": "id=",
    "no value": "id",
    "not a number": "id=abc",
    "negative": "id=-1",
    "zero": "id=0",
    "minus zero": "id=-0",
    "fractional": "id=1.5",
    "fractional, of a whole number": "id=1.0",
    "repeated": "id=1&id=2",
    "repeated, the same": "id=1&id=1",
    "repeated, the second empty": "id=1&id=",
    "over 64 bit by one": f"id={MAX_ID + 1}",
    "over 64 bit unsigned": "id=18446744073709551617",
    "10,000 digits": "id=" + "9" * 10_000,
    "10,000 zeros": "id=" + "0" * 10_000 + "1",
    "leading zero": "id=01",
    "plus sign": "id=%2B1",
    "leading space": "id=%201",
    "leading plus, which means a space": "id=+1",
    "trailing space": "id=1%20",
    "trailing line break": "id=1%0A",
    "header injection": "id=1%0D%0AX-Evil:%201",
    "exponent": "id=1e3",
    "hexadecimal": "id=0x1",
    "underscore": "id=1_000",
    "thousands": "id=1,000",
    "Arabic digits": "id=%D9%A1",
    "full-width digit": "id=%EF%BC%91",
    "superscript": "id=%C2%B2",
    "NUL": "id=%00",
    "NUL after a digit": "id=1%00",
    "not UTF-8": "id=%ff",
    "half an escape": "id=%",
    "infinity": "id=Infinity",
    "true": "id=true",
    "null": "id=null",
    "array": "id[]=1",
    "list": "id=[1]",
    "semicolon is no separator": "id=1;id=2",
    "SQL": "id=1%20OR%201=1;--",
    "encoded twice": "id=%2531",
}


@pytest.mark.parametrize("query", BAD_IDS.values(), ids=BAD_IDS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_id_that_is_none_gets_400_which_says_why(api: Api, method: str, query: str) -> None:
    body = {"json": {"name": "a", "body": "b"}} if method == "PUT" else {}
    response = await api.client.request(method, f"/template-details?{query}", **body)  # type: ignore[arg-type]
    problem = problem_of(response, 400, "malformed_request")
    (error,) = problem["errors"]
    assert error["field"] == "id"
    assert error["reason"] in problem["detail"]
    assert len(response.content) < 1_000
    assert api.cache.writes == []


@pytest.mark.parametrize("query", ["id=1", "id=%31", "x=2&id=1", "id=1&x=2&x=3", "id=1&", "%69d=1"])
async def test_an_id_given_once_is_found_among_other_parameters(api: Api, query: str) -> None:
    response = await api.client.get(f"/template-details?{query}")
    assert response.status_code == 200
    assert response.json()["id"] == 1


async def test_the_largest_id_is_one(api: Api) -> None:
    api.repository.put(template(MAX_ID))
    assert (await api.client.get(f"/template-details?id={MAX_ID}")).json()["id"] == MAX_ID


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("unknown", [3, MAX_ID])
async def test_an_unknown_id_gets_404(api: Api, method: str, unknown: int) -> None:
    body = {"json": {"name": "a", "body": "b"}} if method == "PUT" else {}
    response = await api.client.request(method, f"/template-details?id={unknown}", **body)  # type: ignore[arg-type]
    assert str(unknown) in problem_of(response, 404, "template_not_found")["detail"]


async def test_head_of_an_error_has_the_head_of_get(api: Api) -> None:
    for query in ("id=x", "id=99"):
        get, head = [await api.client.request(method, f"/template-details?{query}") for method in ("GET", "HEAD")]
        assert (head.status_code, head.headers) == (get.status_code, get.headers)
