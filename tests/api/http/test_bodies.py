from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator

import pytest

from app.api.http.parameters import MAX_FIELD_CHARS, MAX_VIOLATIONS
from app.concurrency.fair_timeout import LAG_S
from app.domain.template import MAX_BODY_CHARS, MAX_NAME_CHARS
from tests.api.http.conftest import MAX_BODY_BYTES, Api, client_of, make_app
from tests.api.http.problem import problem_of

JSON = {"Content-Type": "application/json"}
GOOD = b'{"name":"a","body":"b"}'
WRITES = [("POST", "/template-details"), ("PUT", "/template-details?id=1")]

MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "cut short": b'{"name":"a","bo',
    "trailing garbage": GOOD + b"x",
    "two documents": GOOD + GOOD,
    "trailing comma": b'{"name":"a","body":"b",}',
    "single quotes": b"{'name':'a','body':'b'}",
    "comment": b'{"name":"a",/**/"body":"b"}',
    "unquoted": b"{name:1}",
    "form": b"name=a&body=b",
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "Latin-1": '{"name":"é","body":"b"}'.encode("latin-1"),
    "surrogate in UTF-8": b'{"name":"\xed\xa0\x80","body":"b"}',
    "overlong UTF-8": b'{"name":"\xc0\xaf","body":"b"}',
    "lone high surrogate": rb'{"name":"\ud800","body":"b"}',
    "lone low surrogate": rb'{"name":"\udc00","body":"b"}',
    "surrogates the wrong way round": rb'{"name":"\udc00\ud800","body":"b"}',
    "half an escape": rb'{"name":"\u12","body":"b"}',
    "raw control character": b'{"name":"\x01","body":"b"}',
    "raw NUL": b'{"name":"\x00","body":"b"}',
    "gzip": b"\x1f\x8b\x08\x00",
    "100,000 open brackets": b"[" * 100_000,
    "50,000 open objects": b'{"name":' * 49_000,
    "number of 10,000 digits": b'{"name":' + b"9" * 10_000 + b',"body":"b"}',
    "name twice": b'{"name":"a","body":"b","name":"c"}',
    "name twice, the first nested": b'{"name":[[{"x":[]}]],"body":"b","name":"c"}',
    "name twice, the first a long number": b'{"name":' + b"9" * 4_000 + b',"body":"b","name":"c"}',
    "name twice, once escaped": rb'{"name":"a","body":"b","n\u0061me":"c"}',
}
INVALID: dict[str, tuple[bytes, set[str]]] = {
    "null": (b"null", {"(body)"}),
    "number": (b"1", {"(body)"}),
    "string": (b'"name"', {"(body)"}),
    "array": (b"[" + GOOD + b"]", {"(body)"}),
    "nothing given": (b"{}", {"name", "body"}),
    "body missing": (b'{"name":"a"}', {"body"}),
    "nulls": (b'{"name":null,"body":null}', {"name", "body"}),
    "numbers": (b'{"name":1,"body":2.5}', {"name", "body"}),
    "booleans": (b'{"name":true,"body":false}', {"name", "body"}),
    "nested": (b'{"name":{"a":1},"body":["b"]}', {"name", "body"}),
    "not a number": (b'{"name":NaN,"body":Infinity}', {"name", "body"}),
    "one field too many": (b'{"name":"a","body":"b","id":7}', {"id"}),
    "names are case-sensitive": (b'{"Name":"a","body":"b"}', {"name", "Name"}),
    "prototype": (b'{"name":"a","body":"b","__proto__":{"x":1}}', {"__proto__"}),
    "name without a name": (b'{"name":"a","body":"b","":1}', {"(body)"}),
    "empty name": (b'{"name":"","body":"b"}', {"name"}),
    "blank name": (b'{"name":" \\t\\u3000","body":"b"}', {"name"}),
    "NULs": (rb'{"name":"\u0000","body":"b\u0000"}', {"name", "body"}),
    "name too long": (b'{"name":"%s","body":""}' % (b"n" * (MAX_NAME_CHARS + 1)), {"name"}),
    "body too long": (b'{"name":"n","body":"%s"}' % (b"b" * (MAX_BODY_CHARS + 1)), {"body"}),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_what_is_no_json_gets_400_and_writes_nothing(api: Api, method: str, path: str, content: bytes) -> None:
    response = await api.client.request(method, path, content=content, headers=JSON)
    problem_of(response, 400, "malformed_request")
    assert api.cache.writes == []


@pytest.mark.parametrize(("content", "fields"), INVALID.values(), ids=INVALID)
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_json_that_breaks_a_rule_gets_422_which_names_every_field(
    api: Api, method: str, path: str, content: bytes, fields: set[str]
) -> None:
    response = await api.client.request(method, path, content=content, headers=JSON)
    problem = problem_of(response, 422, "invalid_input")
    assert {error["field"] for error in problem["errors"]} == fields
    assert api.cache.writes == []


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a", ""),
        ("n" * MAX_NAME_CHARS, "b" * MAX_BODY_CHARS),
        ("😀" * MAX_NAME_CHARS, "\U0010ffff" * MAX_BODY_CHARS),
        (" a ", "\x01\x7f\u2028\ufffe"),
        ('"\\/', "</script>\r\n\t"),
    ],
    ids=["shortest", "longest", "longest in characters", "odd characters", "what JSON escapes"],
)
@pytest.mark.parametrize("escaped", [False, True])
async def test_what_the_rules_allow_comes_back_as_it_was_sent(api: Api, name: str, body: str, escaped: bool) -> None:
    content = json.dumps({"name": name, "body": body}, ensure_ascii=escaped).encode()
    created = await api.client.post("/template-details", content=content, headers=JSON)
    assert created.status_code == 201
    read = await api.client.get(created.headers["location"])
    assert read.content == created.content
    assert (read.json()["name"], read.json()["body"]) == (name, body)


@pytest.mark.parametrize(
    "content", [b'{"' + b"k" * 300_000 + b'":1}', b"{" + b",".join(b'"%d":1' % n for n in range(30_000)) + b"}"]
)
async def test_a_body_of_unknown_fields_does_not_come_back_in_the_answer(api: Api, content: bytes) -> None:
    response = await api.client.post("/template-details", content=content, headers=JSON)
    errors = problem_of(response, 422, "invalid_input")["errors"]
    assert len(errors) <= MAX_VIOLATIONS
    assert max(len(error["field"]) for error in errors) <= MAX_FIELD_CHARS + 1
    assert len(response.content) < 5_000


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "text/plain; application/json"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": 'application/json; x=y; Charset = "ISO-8859-1"'},
        {**JSON, "Content-Encoding": "gzip"},
        {**JSON, "Content-Encoding": "identity, gzip"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_body_of_another_type_gets_415(api: Api, method: str, path: str, headers: dict[str, str]) -> None:
    response = await api.client.request(method, path, content=GOOD, headers=headers)
    problem_of(response, 415, "unsupported_media_type")
    assert api.cache.writes == []


@pytest.mark.parametrize(
    "headers",
    [
        JSON,
        {"Content-Type": "Application/JSON"},
        {"Content-Type": "application/json;charset=UTF-8"},
        {"Content-Type": 'application/json ; charset="utf-8"'},
        {"Content-Type": "application/json; subcharset=latin-1"},
        {**JSON, "Content-Encoding": "identity"},
    ],
    ids=str,
)
async def test_json_by_any_of_its_names_is_taken(api: Api, headers: dict[str, str]) -> None:
    assert (await api.client.post("/template-details", content=GOOD, headers=headers)).status_code == 201


def _padded(size: int) -> bytes:
    return GOOD[:-1] + b" " * (size - len(GOOD)) + b"}"


async def _in_chunks(content: bytes, read: list[int]) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 10_000):
        read.append(start)
        yield content[start : start + 10_000]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_body_of_the_largest_size_is_taken_and_one_byte_more_gets_413(api: Api, method: str, path: str) -> None:
    taken = await api.client.request(method, path, content=_padded(MAX_BODY_BYTES), headers=JSON)
    assert taken.is_success
    refused = await api.client.request(method, path, content=_padded(MAX_BODY_BYTES + 1), headers=JSON)
    problem_of(refused, 413, "body_too_large")
    assert refused.headers["connection"] == "close"


async def test_a_body_that_says_it_is_too_large_is_refused_unread(api: Api) -> None:
    read: list[int] = []
    for declared in (str(MAX_BODY_BYTES + 1), "9" * 5_000, "0" * 50 + str(MAX_BODY_BYTES + 1)):
        response = await api.client.post(
            "/template-details", content=_in_chunks(GOOD, read), headers={**JSON, "Content-Length": declared}
        )
        problem_of(response, 413, "body_too_large")
    assert read == []


async def test_a_chunked_body_is_read_no_further_than_it_may_be_long(api: Api) -> None:
    read: list[int] = []
    content = _padded(10 * MAX_BODY_BYTES)
    response = await api.client.post("/template-details", content=_in_chunks(content, read), headers=JSON)
    problem_of(response, 413, "body_too_large")
    assert read[-1] <= MAX_BODY_BYTES


async def test_a_body_that_does_not_come_in_time_gets_408_and_the_connection_closed(api: Api) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield GOOD[:5]
        await asyncio.Event().wait()

    async with client_of(make_app(api.service, api.health, api.metrics, receive_timeout_s=0.01)) as client:
        response = await client.put("/template-details?id=1", content=stalled(), headers=JSON)
    problem_of(response, 408, "request_timeout")
    assert response.headers["connection"] == "close"
    assert api.repository.templates[1].version == 3


async def test_a_body_that_came_while_the_event_loop_was_held_up_past_its_time_is_taken(api: Api) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def hold_up() -> None:
        theirs.sendall(GOOD[5:])
        time.sleep(0.05 + 5 * LAG_S)

    async def late() -> AsyncIterator[bytes]:
        yield GOOD[:5]
        loop.call_soon(hold_up)
        yield await loop.sock_recv(ours, 100)

    with ours, theirs:
        async with client_of(make_app(api.service, api.health, api.metrics, receive_timeout_s=0.05)) as client:
            response = await client.put("/template-details?id=1", content=late(), headers=JSON)
    assert response.status_code == 200
