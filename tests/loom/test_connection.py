"""The two sockets: what is said on one is heard on the other, neither outruns the other, and ends are passed on."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from app.loom.call import Ending, Status
from app.loom.proxy import framing
from app.loom.proxy.framing import PREFACE
from app.loom.proxy.http2 import GOAWAY
from app.loom.proxy.interception import Interception
from app.loom.proxy.limits import Limits
from tests.loom import wire
from tests.loom.account import WAIT_S, eventually, refuses
from tests.loom.backend import Backend
from tests.loom.conftest import UNLIMITED, path, proxied, serving
from tests.loom.raw import Peer, answer_all, client, scripted
from tests.loom.wire import OK_TRAILERS, PING, REQUEST_HEADERS, RESPONSE_HEADERS, data, frame, message

HELLO = PREFACE + wire.settings()


async def end(peer: Peer) -> None:
    await peer.end()


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_the_preface_and_all_after_it_may_come_in_tiny_pieces(
    size: int, interception: Interception | None
) -> None:
    async with (
        scripted(answer_all) as port,
        proxied(port, interception=interception) as front,
        client(front.port, b"") as caller,
    ):
        whole = HELLO + caller.block(1, REQUEST_HEADERS) + data(1, message(b"ask"), end=True, padding=3)
        for start in range(0, len(whole), size):
            caller.send(whole[start : start + size])
            await caller.writer.drain()
            await asyncio.sleep(0)
        assert (await caller.next(framing.DATA)).payload == message(b"ask")
        told = await front.account.one()
        assert (told.requests, told.responses, told.end.status) == ([b"ask"], [b"ask"], Status.OK)


async def test_pings_go_end_to_end_both_ways_and_loom_answers_none_itself(interception: Interception | None) -> None:
    heard, may_answer = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await until_heard(peer, ASKED)
        heard.set()
        await asyncio.wait_for(may_answer.wait(), WAIT_S)
        peer.send(pong(ASKED), ping(PROBED))
        await until_heard(peer, pong(PROBED))
        peer.send(ping(LAST))
        await peer.end()

    async with (
        scripted(script) as port,
        proxied(port, interception=interception) as front,
        client(front.port) as caller,
    ):
        caller.send(ping(ASKED))
        await asyncio.wait_for(heard.wait(), WAIT_S)
        assert ASKED not in caller.received
        may_answer.set()
        await until_heard(caller, ping(PROBED))
        caller.send(pong(PROBED))
        await until_heard(caller, ping(LAST))
        assert [caller.received.count(payload) for payload in (ASKED, PROBED, LAST)] == [1, 1, 1]
        assert pong(ASKED) in caller.received


ASKED, PROBED, LAST = b"\0\0\0\0asks", b"\0\0\0probe", b"\0\0\0\0last"


def ping(payload: bytes) -> bytes:
    return frame(PING, 0, 0, payload)


def pong(payload: bytes) -> bytes:
    return frame(PING, framing.ACK, 0, payload)


async def until_heard(peer: Peer, wanted: bytes) -> None:
    while wanted not in peer.received:
        assert await peer.read()


async def test_a_ping_is_answered_by_loom_where_there_is_no_backend() -> None:
    async with proxied(1) as front, client(front.port) as caller:
        caller.send(ping(ASKED))
        await until_heard(caller, pong(ASKED))
        assert front.account.counts["dial failed"] == 1


async def test_a_client_that_does_not_read_blocks_the_backend_and_fills_no_memory() -> None:
    limits = Limits(write_buffer_bytes=65_536)
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS))
        peer.writer.transport.set_write_buffer_limits(high=0)
        for _ in range(20_000):
            peer.send(data(stream, message(bytes(16_000))))
            await peer.writer.drain()
            sent += 16_000

    async def stands_still() -> int:
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        return sent

    async with scripted(script) as port, proxied(port, limits) as front, client(front.port) as caller:
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        caller.send(caller.block(1, REQUEST_HEADERS))
        await front.account.until(lambda: any(call.messages for call in front.account.calls.values()))
        blocked_at = await stands_still()
        assert blocked_at < 200_000_000  # the kernel's buffers, and Loom's
        (connection,) = front.proxy._connections
        assert connection.client.transport.get_write_buffer_size() < 10 * limits.write_buffer_bytes
        caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while len(caller.received) < blocked_at + 1_000_000:
            assert await caller.read()


async def test_a_backend_that_does_not_read_blocks_the_client(interception: Interception | None) -> None:
    limits = Limits(write_buffer_bytes=65_536)
    async with path(
        limits, interception=interception
    ) as through:  # flow control of a real pair: the server reads only what the handler takes
        call = through.channel.stream_unary("/test.Interop/ClientStream")()
        for _ in range(200):
            await call.write(bytes(65_536))
        await call.done_writing()
        assert await call == b"13107200"
        told = await through.account.one()
        assert told.end.requests == 200


async def test_a_backend_that_dies_while_it_does_not_read_is_noticed_and_the_client_told() -> None:
    may_die = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.headers()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.wait_for(may_die.wait(), WAIT_S)
        peer.writer.transport.abort()

    async with (
        scripted(script) as port,
        proxied(port) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        await front.account.until(lambda: bool(front.account.calls))
        while caller.writer.transport.get_write_buffer_size() < 1_000_000:
            caller.send(data(1, message(bytes(16_000))))
            await asyncio.sleep(0)
        may_die.set()
        await caller.end()
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.UNAVAILABLE, Ending.BACKEND_LOST)


async def test_a_half_closed_client_still_gets_its_answer(interception: Interception | None) -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        await peer.end()
        peer.send(peer.block(stream, [*RESPONSE_HEADERS, *OK_TRAILERS], end=True))

    async with (
        scripted(script) as port,
        proxied(port, interception=interception) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS, end=True))
        await caller.next(framing.SETTINGS)
        caller.writer.write_eof()
        assert (await caller.headers())[0] == 1
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.OK, Ending.TRAILERS_ONLY)


async def test_a_connection_with_one_side_gone_is_not_kept_for_ever(interception: Interception | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.headers()
        await peer.end()
        await asyncio.Event().wait()  # never closes its side

    async with scripted(script) as port, proxied(port, Limits(linger_s=0.2), interception=interception) as front:
        async with client(front.port) as caller:
            caller.send(caller.block(1, REQUEST_HEADERS))
            await front.account.until(lambda: bool(front.account.calls))
            caller.writer.write_eof()
            await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert front.proxy.connections == 0


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1\r\n\r\n", b"POST /x HTTP/1.1\r\n", b"PRI * HTTP/1.1\r\n", b"P"]
)
async def test_http_1_gets_a_clear_answer_and_no_connection_to_the_backend(
    request_line: bytes, interception: Interception | None
) -> None:
    limits = Limits(preface_s=0.3 if request_line == b"P" else WAIT_S)
    async with (
        proxied(1, limits, interception=interception) as front,
        client(front.port, request_line) as caller,
    ):
        for _ in range(3):
            await asyncio.sleep(0)
        await caller.end()
        await front.account.until(lambda: front.proxy.connections == 0 or bool(front.account.counts))
        if request_line.startswith((b"GET", b"POST")):
            assert caller.received.startswith(b"HTTP/1.1 505 ")
            assert b"gRPC" in caller.received
            assert front.account.counts == {"refused http1": 1}
        else:
            assert caller.received == b""
            assert front.account.counts == {"refused silent" if request_line == b"P" else "refused garbage": 1}


@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        (b"\x00\x01\x02", "garbage"),
        (b"PRI * HTTP/2.0\r\n\r\nSX", "garbage"),
        (b"\x16\x03\x01\x02\x00\x01", "tls"),
        (b"", "silent"),
        (b"PRI * HT", "silent"),
    ],
)
async def test_what_is_not_http_2_is_closed_counted_and_said_in_one_line(
    greeting: bytes, why: str, caplog: pytest.LogCaptureFixture, interception: Interception | None
) -> None:
    limits = Limits(preface_s=0.2 if why == "silent" else WAIT_S)
    async with (
        proxied(1, limits, interception=interception) as front,
        client(front.port, greeting) as caller,
    ):
        await caller.end()
        assert front.account.counts == {f"refused {why}": 1}
        await front.account.until(lambda: not front.proxy.connections)
    assert len(caplog.records) == 1


async def test_one_client_too_many_is_closed_and_the_others_go_on(interception: Interception | None) -> None:
    async with (
        scripted(answer_all) as port,
        proxied(port, Limits(connections=1), interception=interception) as front,
        client(front.port) as first,
    ):
        first.send(first.block(1, REQUEST_HEADERS), data(1, message(b"ask"), end=True))
        await front.account.one()
        async with client(front.port) as second:
            await second.gone()
        assert front.account.counts["refused full"] == 1
        first.send(first.block(3, REQUEST_HEADERS), data(3, message(b"ask"), end=True))
        await front.account.ended(2)


async def test_a_blinded_connection_goes_on_and_is_asked_to_go_between_header_blocks() -> None:
    may_go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.headers()
        whole = peer.block(1, [*RESPONSE_HEADERS, ("x-long", "v" * 300)], in_frames=3)
        peer.send(whole[:40])
        await asyncio.wait_for(may_go_on.wait(), WAIT_S)
        peer.send(whole[40:] + data(1, message(b"answer")))
        await peer.end()

    async with scripted(script) as port, proxied(port) as front, client(front.port) as caller:
        caller.send(caller.block(1, REQUEST_HEADERS))
        while len(caller.received) < 40:
            await caller.read()
        caller.send(frame(framing.HEADERS, framing.END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"))
        await front.account.until(lambda: front.account.counts["blinded hpack"] == 1)
        may_go_on.set()
        while not (GOAWAY in caller.received and message(b"answer") in caller.received):
            assert await caller.read()
        frames = framing.FrameParser(max_payload_bytes=1 << 16).feed(bytes(caller.received))
        kinds = [found.kind for found in frames if found.kind != framing.SETTINGS]
        kinds.remove(framing.GOAWAY)
        assert kinds == [framing.HEADERS, framing.CONTINUATION, framing.CONTINUATION, framing.DATA]
        begins, ends = caller.received.index(GOAWAY), bytes(caller.received).rindex(b"\x09\x04\0\0\0\x01")
        assert begins > ends


async def test_stopping_asks_clients_to_go_and_lets_their_calls_finish(interception: Interception | None) -> None:
    backend = Backend()
    async with serving(backend) as (_, port), proxied(port, interception=interception) as front:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}", options=UNLIMITED) as channel:
            call = channel.unary_unary("/test.Interop/Held")(b"held")
            await asyncio.wait_for(backend.arrived.wait(), WAIT_S)
            stopping = asyncio.create_task(front.proxy.stop(WAIT_S))
            await eventually(lambda: refuses(front.port))
            backend.go_on.set()
            assert await call == b"held"
            await asyncio.wait_for(stopping, WAIT_S)
        told = await front.account.one()
        assert told.end.status is Status.OK


async def test_what_does_not_end_in_time_is_cut_and_told_so(interception: Interception | None) -> None:
    async with scripted(end) as port, proxied(port, interception=interception) as front, client(front.port) as caller:
        caller.send(caller.block(1, REQUEST_HEADERS))
        await front.account.until(lambda: bool(front.account.calls))
        await front.proxy.stop(0.1)
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.UNAVAILABLE, Ending.CUT)
        assert (await caller.next(framing.GOAWAY)).payload == GOAWAY[9:]
