"""The real server against clients that send without end, slowly or not at all: bounded, and never a hang."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from app.api.http.protocol import MAX_HEAD_BYTES
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from tests.api.http.conftest import RECEIVE_TIMEOUT_S, Hasty
from tests.api.http.wire import GET, GOOD, connected, is_final_problem, put
from tests.faults.metrics import Scraped


async def test_nothing_at_all_but_line_breaks_is_waited_for_no_longer_than_a_head(hasty: Hasty) -> None:
    async with connected(hasty.port) as wire:
        await wire.send(b"\r\n" * 10)
        assert await wire.is_closed_by_peer()


ENDLESS = {
    "header value": (b"GET /live HTTP/1.1\r\nHost: app\r\nX: ", b"y" * 10_000),
    "header name": (b"GET /live HTTP/1.1\r\nHost: app\r\n", b"X" * 10_000),
    "headers": (b"GET /live HTTP/1.1\r\nHost: app\r\n", b"X-Header: value\r\n" * 500),
    "path": (b"GET /", b"a" * 10_000),
    "query": (b"GET /template-details?id=", b"1" * 10_000),
    "method": (b"", b"G" * 10_000),
    "line breaks": (b"", b"\r\n" * 5_000),
    "chunk extension": (put(b"Transfer-Encoding: chunked") + b"1;x=", b"y" * 10_000),
    "trailers": (put(b"Transfer-Encoding: chunked") + b"0\r\n", b"X-Trailer: value\r\n" * 500),
    "trailer": (put(b"Transfer-Encoding: chunked") + b"0\r\nX: ", b"y" * 10_000),
}


@pytest.mark.parametrize(("begin", "go_on"), ENDLESS.values(), ids=ENDLESS)
async def test_what_never_ends_is_cut_off_before_it_fills_the_memory(port: int, begin: bytes, go_on: bytes) -> None:
    sent = 0
    async with connected(port) as wire:
        try:
            await wire.send(begin)
            while sent < 50 * MAX_HEAD_BYTES:
                await wire.send(go_on)
                sent += len(go_on)
        except OSError:
            pass  # the answer may be lost with the connection, as the peer stopped reading
        else:
            pytest.fail("all of it was taken")


async def test_a_head_that_is_too_large_gets_431(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(b"GET /live HTTP/1.1\r\nHost: app\r\nX: " + b"y" * MAX_HEAD_BYTES)
        (answer,) = await wire.answers()
    is_final_problem(answer, 431, "headers_too_large")


async def test_a_head_that_is_as_large_as_it_may_be_is_answered(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(GET[:-2] % 8 + b"X: " + b"y" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n")
        answer = await wire.answer()
    assert answer is not None
    assert answer.json()["id"] == 8


async def test_a_head_that_is_too_large_behind_a_request_does_not_take_the_place_of_its_answer(port: int) -> None:
    async with connected(port) as wire:
        await wire.send(GET % 9 + b"GET /live HTTP/1.1\r\nX: " + b"y" * 2 * MAX_HEAD_BYTES)
        first = await wire.answer()
    assert first is not None
    assert first.json()["id"] == 9


BEGUN = {
    "nothing": b"",
    "one byte": b"G",
    "one line": b"GET /live HTTP/1.1\r\n",
    "all but the end": b"GET /live HTTP/1.1\r\nHost: app\r\nX: y",
    "a second request": GET % 1 + b"GET /li",
}


async def test_a_head_that_does_not_come_in_time_ends_the_connection(hasty: Hasty) -> None:
    async def answered(begin: bytes) -> list[int]:
        began = time.monotonic()
        async with connected(hasty.port) as wire:
            await wire.send(begin)
            answers = await wire.answers()
        assert RECEIVE_TIMEOUT_S * 0.9 < time.monotonic() - began < RECEIVE_TIMEOUT_S + 5
        return [answer.status for answer in answers]

    statuses = await asyncio.gather(*map(answered, BEGUN.values()))
    assert dict(zip(BEGUN, statuses, strict=True)) == {name: [200] if "second" in name else [] for name in BEGUN}


async def test_a_head_that_trickles_in_gains_no_time_by_that(hasty: Hasty) -> None:
    began = time.monotonic()
    async with connected(hasty.port) as wire:
        with contextlib.suppress(OSError):
            await wire.send(b"GET /")
            while time.monotonic() - began < RECEIVE_TIMEOUT_S + 10:
                await wire.send(b"a")
                await asyncio.sleep(0.05)
    assert time.monotonic() - began < RECEIVE_TIMEOUT_S + 5


async def test_a_body_that_does_not_come_in_time_gets_408(hasty: Hasty) -> None:
    async def is_refused(head: bytes) -> None:
        began = time.monotonic()
        async with connected(hasty.port) as wire:
            await wire.send(head + GOOD[:5])
            (answer,) = await wire.answers()
        is_final_problem(answer, 408, "request_timeout")
        assert RECEIVE_TIMEOUT_S * 0.9 < time.monotonic() - began < RECEIVE_TIMEOUT_S + 5

    await asyncio.gather(
        is_refused(put(b"Content-Length: 23")), is_refused(put(b"Transfer-Encoding: chunked") + b"17\r\n")
    )


async def test_a_client_that_sends_nothing_more_is_answered_or_let_go(port: int) -> None:
    for sent in (GET % 10, put(b"Content-Length: 23") + GOOD[:5], b"GET /live"):
        async with connected(port) as wire:
            await wire.send(sent)
            wire.finish_sending()
            answers = await wire.answers()
        assert [answer.status for answer in answers] in ([], [200])


async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(hasty: Hasty, stack: EmbeddedStack) -> None:
    stack.postgres.sql(
        "INSERT INTO templates (name, body) SELECT 'large', repeat(chr(128512), 65536) FROM generate_series(1, 45)",
        database=hasty.database,
    )
    before = _lists(hasty.replica)
    async with connected(hasty.port, receive_buffer=4096) as wire, connected(hasty.port, receive_buffer=4096) as last:
        await wire.send(b"GET /templates?after=1000&limit=100 HTTP/1.1\r\nHost: app\r\n\r\n")
        await last.send(b"GET /templates?after=1000&limit=100 HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        await _until(lambda: _lists(hasty.replica) == before + 2, "both have an end")
        await _until(lambda: _connections(hasty.replica) == 0, "both are cut off")


def _lists(replica: Replica) -> float:
    """Of templates, answered or given up."""
    metrics = Scraped(httpx.get(f"{replica.http_url}/metrics").text)
    return sum(
        count for labels, count in metrics.named("http_request_total").items() if ("path", "/templates") in labels
    )


def _connections(replica: Replica) -> int:
    connections = psutil.Process(replica.pid).net_connections("tcp")
    return sum(
        c.status == psutil.CONN_ESTABLISHED and c.laddr.port == urlsplit(replica.http_url).port for c in connections
    )


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.02)


async def test_clients_that_reset_their_connections_leave_nothing_behind(port: int, replica: Replica) -> None:
    for sent in (b"", b"GET /li", GET % 20, put(b"Content-Length: 23") + GOOD[:5]) * 5:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(sent)
    await _until(lambda: _connections(replica) == 0, "no connection is left")
    async with connected(port) as wire:
        await wire.send(GET % 20)
        answer = await wire.answer()
    assert answer is not None
    assert answer.status == 200
