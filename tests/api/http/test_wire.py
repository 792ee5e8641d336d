"""The real server, spoken to by hand: what is HTTP is answered, what is not is refused, and never with a 500."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from app.embedded.replica import Replica
from tests.api.http.wire import GET, GOOD, connected, is_final_problem, put


async def test_pipelined_requests_are_answered_in_their_order_each_in_full(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(b"".join(GET % n for n in (3, 1, 2)) + b"GET /nope HTTP/1.1\r\nHost: app\r\n\r\n" + GET % 4)
        answers = [await wire.answer() for _ in range(5)]
    assert [answer and (answer.status, answer.json().get("id")) for answer in answers] == [
        (200, 3),
        (200, 1),
        (200, 2),
        (404, None),
        (200, 4),
    ]


async def test_a_crowd_in_one_instant_gets_each_its_own_answers_in_order_and_who_leaves_it_holds_up_nobody(
    port: int, replica: Replica
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(connected(port)) for _ in range(200)]
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            for number, wire in enumerate(crowd):
                await wire.send((GET % (100_000 + number)) + GET % 1)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        for wire in crowd[::4]:
            wire.reset()
        staying = [(number, wire) for number, wire in enumerate(crowd) if number % 4]
        answers = [(number, await wire.answer(), await wire.answer()) for number, wire in staying]
    for number, first, second in answers:
        assert first is not None
        assert (first.status, first.json()["detail"]) == (404, f"there is no template with id {100_000 + number}")
        assert second is not None
        assert (second.status, second.json()["id"]) == (200, 1)


async def test_a_pipelined_request_behind_one_with_a_body_is_read_from_where_that_ends(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(put(b"Content-Length: %d" % len(GOOD)) + GOOD + GET % 2)
        answers = [await wire.answer(), await wire.answer()]
    assert [answer and answer.json()["id"] for answer in answers] == [1, 2]


async def test_head_is_answered_with_the_length_that_get_would_have_and_no_body(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(GET % 5)
        get = await wire.answer()
        await wire.send((GET % 5).replace(b"GET", b"HEAD"))
        head = await wire.answer(to_head=True)
        await wire.send(GET % 6)
        after = await wire.answer()
    assert get is not None
    assert head is not None
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))
    assert head.headers["etag"] == get.headers["etag"]
    assert after is not None
    assert after.json()["id"] == 6


GARBAGE = {
    "NULs": b"\0" * 100,
    "random bytes": bytes(range(255, 0, -1)) * 4,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "no path": b"GET\r\n\r\n",
    "no version that there is": b"GET / HTTP/9.9\r\n\r\n",
    "words": b"hello, is anybody there?\r\n\r\n",
    "lower-case method": b"get /live HTTP/1.1\r\nHost: app\r\n\r\n",
    "header without a colon": b"GET /live HTTP/1.1\r\nHost app\r\n\r\n",
    "space before the colon": b"GET /live HTTP/1.1\r\nHost : app\r\n\r\n",
    "NUL in a header": b"GET /live HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: app\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "negative length": put(b"Content-Length: -1"),
    "length that is no number": put(b"Content-Length: ten"),
    "length over 64 bit": put(b"Content-Length: 99999999999999999999999"),
    "two lengths": put(b"Content-Length: 5", b"Content-Length: 6"),
    "length and chunks": put(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "unknown transfer coding": put(b"Transfer-Encoding: gzip") + b"x",
    "chunk size that is no number": put(b"Transfer-Encoding: chunked") + b"xyz\r\n",
    "chunk size over 64 bit": put(b"Transfer-Encoding: chunked") + b"F" * 30 + b"\r\n",
    "chunk longer than its size": put(b"Transfer-Encoding: chunked") + b"1\r\nabc\r\n",
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_no_http_gets_one_400_and_the_connection_closed(port: int, sent: bytes) -> None:
    async with connected(port) as wire:
        await wire.send(sent)
        (answer,) = await wire.answers()
    is_final_problem(answer, 400, "malformed_request")


async def test_garbage_behind_a_request_does_not_take_the_place_of_its_answer(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(GET % 7 + b"\0garbage\r\n\r\n")
        (answer,) = await wire.answers()
    assert answer.json()["id"] == 7


@pytest.mark.parametrize("headers", [b"", b"Host: app\r\n", b"Connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_and_the_connection_closed(port: int, headers: bytes) -> None:
    async with connected(port) as wire:
        await wire.send(b"GET /template-details?id=11 HTTP/1.0\r\n" + headers + b"\r\n")
        (answer,) = await wire.answers()
    assert answer.json()["id"] == 11
    assert answer.headers["connection"] == "close"


async def test_a_client_that_waits_for_100_gets_it_and_then_its_answer(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(put(b"Content-Length: 23", b"Expect: 100-continue", template_id=12))
        first = await wire.answer()
        assert first is not None
        assert first.status == 100
        await wire.send(GOOD)
        second = await wire.answer()
    assert second is not None
    assert (second.status, second.json()["name"]) == (200, "a")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (put(b"Content-Length: 99999999", b"Expect: 100-continue"), 413),
        (put(b"Content-Length: 23", b"Expect: 100-continue").replace(b"id=1", b"id=x"), 400),
        (put(b"Content-Length: 23", b"Expect: 100-continue").replace(b"json", b"xml"), 415),
    ],
)
async def test_a_client_that_waits_for_100_in_vain_gets_its_error_instead(port: int, head: bytes, status: int) -> None:
    async with connected(port) as wire:
        await wire.send(head)
        answer = await wire.answer()
    assert answer is not None
    assert answer.status == status


async def test_a_chunked_body_with_extensions_and_trailers_is_taken(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(put(b"Transfer-Encoding: chunked", template_id=13))
        for byte in GOOD:
            await wire.send(b"1;x=y\r\n%c\r\n" % byte)
        await wire.send(b"0\r\nX-Trailer: value\r\n\r\n" + GET % 13)
        answers = [await wire.answer(), await wire.answer()]
    assert [answer and (answer.status, answer.json()["name"]) for answer in answers] == [(200, "a"), (200, "a")]


async def test_an_upgrade_that_is_not_known_is_left_and_the_request_answered(port: int) -> None:
    for upgrade in (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    ):
        async with connected(port) as wire:
            await wire.send(GET[:-2] % 14 + upgrade + b"\r\n")
            first = await wire.answer()
            await wire.send(GET % 15)
            second = await wire.answer()
        assert first is not None
        assert first.json()["id"] == 14
        assert second is not None
        assert second.json()["id"] == 15


async def test_a_body_that_nobody_asked_for_is_passed_over(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(GET[:-2] % 16 + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000 + GET % 17)
        answers = [await wire.answer(), await wire.answer()]
    assert [answer and answer.json()["id"] for answer in answers] == [16, 17]


async def test_a_body_that_is_refused_before_it_is_read_is_passed_over(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(put(b"Content-Length: 100000").replace(b"id=1", b"id=0") + b"x" * 100_000 + GET % 18)
        answers = [await wire.answer(), await wire.answer()]
    assert [answer and answer.status for answer in answers] == [400, 200]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://elsewhere/template-details?id=19 HTTP/1.1", 200),
        (b"GET /template%2Ddetails?id=19 HTTP/1.1", 200),
        (b"GET /template-details?id=19#fragment HTTP/1.1", 200),
        (b"GET /docs/static/../app.py HTTP/1.1", 404),
        (b"GET /docs/static/../../../../../../etc/passwd HTTP/1.1", 404),
        (b"GET /docs/static//etc/passwd HTTP/1.1", 404),
        (b"GET /docs/static/%5c..%5capp.py HTTP/1.1", 404),
        (b"GET //template-details?id=19 HTTP/1.1", 404),
        (b"OPTIONS * HTTP/1.1", 404),
        (b"TRACE /live HTTP/1.1", 405),
        (b"PURGE /template-details?id=19 HTTP/1.1", 405),
    ],
)
async def test_odd_request_lines_are_read_as_what_they_mean(port: int, line: bytes, status: int) -> None:
    async with connected(port) as wire:
        await wire.send(line + b"\r\nHost: app\r\nConnection: close\r\n\r\n")
        answer = await wire.answer()
    assert answer is not None
    assert answer.status == status
