"""The intercept lane where it differs from the relay: two HTTP/2 connections, and what is carried across."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from app.loom.call import Direction, Ending, Headers, Status
from app.loom.proxy import framing
from app.loom.proxy.framing import PREFACE
from app.loom.proxy.interception import CallInterception
from app.loom.proxy.limits import Limits
from tests.loom import wire
from tests.loom.account import WAIT_S, eventually
from tests.loom.backend import Backend
from tests.loom.conftest import UNLIMITED, Untouched, path, proxied, serving
from tests.loom.raw import Peer, client, scripted
from tests.loom.wire import OK_TRAILERS, REQUEST_HEADERS, RESPONSE_HEADERS, data, goaway, message, reset


@dataclass
class Asked:
    """What a test asks for, for every call."""

    rewrite: Callable[[bytes], bytes | None] | None = None
    abort: tuple[Status, str] | None = None
    hold: Callable[[], Awaitable[None]] | None = None
    added: Headers = ()
    is_active: bool = True
    reasons: list[str] = field(default_factory=list)

    def for_call(self, call: int | None, method: str) -> CallInterception | None:
        assert call is not None
        return self

    def headers(self, direction: Direction, headers: Headers) -> Headers:
        return headers + self.added

    def rewrites(self, direction: Direction) -> bool:
        return self.rewrite is not None

    def message(self, direction: Direction, data: bytes) -> bytes | None:
        assert self.rewrite is not None
        return self.rewrite(data)

    def left(self, direction: Direction, why: str) -> None:
        self.reasons.append(why)


async def silent(peer: Peer) -> None:
    await peer.end()


async def test_a_backend_that_goes_away_in_two_steps_finishes_what_it_has() -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        first, _ = await peer.headers()
        peer.send(goaway(0x7FFFFFFF))
        await peer.headers()
        peer.send(goaway(first))
        await asyncio.wait_for(finish.wait(), WAIT_S)
        peer.send(peer.block(first, RESPONSE_HEADERS), data(first, message(b"late")))
        peer.send(peer.block(first, OK_TRAILERS, end=True))
        peer.writer.close()

    async with (
        scripted(script) as port,
        proxied(port, interception=Untouched()) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS, end=True))
        assert (await caller.next(framing.GOAWAY)).payload == (0x7FFFFFFF).to_bytes(4) + bytes(4)
        caller.send(caller.block(3, REQUEST_HEADERS, end=True))
        refused = await caller.next(framing.RST_STREAM)
        assert (refused.stream, refused.payload) == (3, (0x7).to_bytes(4))
        caller.send(caller.block(5, REQUEST_HEADERS, end=True))
        assert (await caller.next(framing.RST_STREAM)).stream == 5
        finish.set()
        assert (await caller.next(framing.DATA)).payload == message(b"late")
        await caller.end()
        first, *others = await front.account.ended(3)
        assert first.end.status is Status.OK
        assert {(call.end.status, call.end.ending) for call in others} == {(Status.UNAVAILABLE, Ending.REFUSED)}


async def test_what_a_backend_sent_before_it_closed_reaches_a_client_that_reads_late() -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS), data(stream, message(bytes(8_000))))
        peer.send(peer.block(stream, OK_TRAILERS, end=True))
        await peer.writer.drain()
        peer.writer.close()

    greeting = framing.PREFACE + wire.settings(initial_window_size=100)
    async with (
        scripted(script) as port,
        proxied(port, interception=Untouched()) as front,
        client(front.port, greeting) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS, end=True))
        assert (await caller.headers())[1] == RESPONSE_HEADERS
        assert len((await caller.next(framing.DATA)).payload or b"") == 100
        (connection,) = front.proxy._connections
        await eventually(lambda: _finished(connection))
        caller.send(wire.frame(wire.WINDOW_UPDATE, 0, 1, (10_000).to_bytes(4)))
        assert (await caller.headers())[1] == OK_TRAILERS
        await caller.end()
        told = await front.account.one()
        assert (told.end.status, told.responses) == (Status.OK, [bytes(8_000)])


async def _finished(connection: Any) -> bool:
    return bool(connection._backend.is_finished)


def room(received: bytes, stream: int) -> int:
    """What WINDOW_UPDATE has added for a stream."""
    added = position = 0
    while position + framing.HEAD_BYTES <= len(received):
        size, kind = int.from_bytes(received[position : position + 3]), received[position + 3]
        payload = received[position + framing.HEAD_BYTES : position + framing.HEAD_BYTES + size]
        if kind == wire.WINDOW_UPDATE and int.from_bytes(received[position + 5 : position + 9]) == stream:
            added += int.from_bytes(payload)
        position += framing.HEAD_BYTES + size
    return added


async def test_a_client_that_does_not_read_blocks_the_backend_and_fills_no_memory() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS))
        is_there = True
        while is_there:
            while 65_535 + room(bytes(peer.received[len(framing.PREFACE) :]), stream) - sent >= 16_005:
                peer.send(data(stream, message(bytes(16_000))))
                sent += 16_005
            is_there = await peer.read()

    async with (
        scripted(script) as port,
        proxied(port, interception=Untouched()) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        await front.account.until(lambda: any(len(call.messages) > 3 for call in front.account.calls.values()))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert 65_535 < sent < 200_000  # the client gave room for 64 KiB, and Loom for as much
        caller.send(wire.frame(wire.WINDOW_UPDATE, 0, 1, (1 << 20).to_bytes(4)))
        caller.send(wire.frame(wire.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4)))
        await front.account.until(lambda: any(len(call.messages) > 60 for call in front.account.calls.values()))
        await caller.read()


async def test_streams_opened_before_the_client_knew_how_many_are_allowed_are_refused_alone() -> None:
    async def script(peer: Peer) -> None:
        peer.send(wire.settings(max_concurrent_streams=1))
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, [*RESPONSE_HEADERS, *OK_TRAILERS], end=True))
        await peer.end()

    async with (
        scripted(script) as port,
        proxied(port, interception=Untouched()) as front,
        client(front.port) as caller,
    ):
        caller.send(*(caller.block(stream, REQUEST_HEADERS, end=True) for stream in (1, 3, 5)))
        told = await front.account.ended(3)
        assert [call.end.ending for call in told] == [Ending.TRAILERS_ONLY, Ending.REFUSED, Ending.REFUSED]


async def test_a_backend_that_never_sends_its_settings_is_given_up_though_the_client_has_gone() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with proxied(server.sockets[0].getsockname()[1], Limits(dial_s=0.3), interception=Untouched()) as front:
        async with client(front.port) as caller:
            await front.account.until(lambda: front.account.counts["connected"] == 1)
            caller.writer.transport.abort()
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
    server.close()


async def test_what_nobody_wants_any_more_takes_up_no_room_on_the_connection() -> None:
    """The backend answers early and resets; the client, who has no room for the answer yet, goes on sending."""
    sent, limits = 0, Limits(intercepted_bytes=70_000)

    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS), data(stream, message(bytes(100))))
        peer.send(peer.block(stream, OK_TRAILERS, end=True), reset(stream, 0))
        second, _ = await peer.headers()
        assert (await peer.next(framing.DATA)).stream == second
        peer.send(peer.block(second, [*RESPONSE_HEADERS, *OK_TRAILERS], end=True))
        await peer.end()

    greeting = framing.PREFACE + wire.settings(initial_window_size=10)
    async with (
        scripted(script) as port,
        proxied(port, limits, interception=Untouched()) as front,
        client(front.port, greeting) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        await caller.next(framing.DATA)
        for _ in range(6):
            caller.send(data(1, message(bytes(15_995))))
            sent += 16_000
            while 65_535 + min(room(bytes(caller.received), each) for each in (0, 1)) - sent < 16_000:
                await caller.read()
        caller.send(caller.block(3, REQUEST_HEADERS), data(3, message(b"heard"), end=True))
        await front.account.until(lambda: front.account.counts["connected"] == 1 and len(front.account.calls) == 2)
        await front.account.until(lambda: bool(list(front.account.calls.values())[1].ended))


async def test_the_authority_is_rewritten_and_nothing_else() -> None:
    seen: list[list[tuple[str, str]]] = []

    async def script(peer: Peer) -> None:
        stream, headers = await peer.headers()
        seen.append(headers)
        peer.send(peer.block(stream, [*RESPONSE_HEADERS, *OK_TRAILERS], end=True))
        await peer.end()

    async with scripted(script) as port, proxied(port, authority="other.test") as front, client(front.port) as caller:
        caller.send(caller.block(1, REQUEST_HEADERS, end=True))
        await caller.headers()
        wanted = [(name, "other.test" if name == ":authority" else value) for name, value in REQUEST_HEADERS]
        assert seen == [wanted]
        assert (await front.account.one()).started.authority == "example.test"


def upper(data: bytes) -> bytes:
    return data.upper() + b"!" * 9


@pytest.mark.parametrize(
    "compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
)
async def test_every_message_of_a_stream_is_changed_both_ways_compressed_or_not(compression: grpc.Compression) -> None:
    asked = Asked(upper)
    async with path(interception=asked, compression=compression) as through:
        call = through.channel.unary_unary("/test.Interop/Unary")(b"ask" * 500, compression=compression)
        assert await call == b"ASK" * 500 + b"!" * 18
        assert through.backend.seen[0].requests == [b"ASK" * 500 + b"!" * 9]
        stream = through.channel.stream_unary("/test.Interop/ClientStream")(
            (b"x" * 1_000 for _ in range(3)), compression=compression
        )
        assert await stream == b"3027" + b"!" * 9
        told = await through.account.ended(2)
        if compression is not grpc.Compression.NoCompression:
            assert told[0].messages[0].compressed
    assert asked.reasons == []


async def test_a_message_that_is_too_large_to_change_passes_and_the_next_one_is_changed() -> None:
    asked = Asked(upper)
    async with path(Limits(rewritten_bytes=1_000), interception=asked) as through:
        call = through.channel.stream_unary("/test.Interop/ClientStream")(b"x" * size for size in (200_000, 10))
        assert await call == b"200019" + b"!" * 9
    assert asked.reasons == ["it has 200000 bytes; 1000 are the most that are changed"]


async def test_a_call_is_aborted_with_its_status_and_the_backend_never_sees_it() -> None:
    asked = Asked(abort=(Status.RESOURCE_EXHAUSTED, "no more, 100 %"))
    async with path(interception=asked) as through:

        def stream() -> None:
            # Not grpc.aio's, which says INTERNAL where a write fails because the call has just ended.
            with grpc.insecure_channel(f"127.0.0.1:{through.before.port}") as channel:
                channel.stream_unary("/test.Interop/ClientStream")(iter([b"x"] * 3), timeout=20)

        for call in (through.channel.unary_unary("/test.Interop/Unary")(b"ask"), asyncio.to_thread(stream)):
            with pytest.raises(grpc.RpcError) as aborted:
                await call
            assert aborted.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert aborted.value.details() == "no more, 100 %"
        assert through.backend.seen == []
        told = await through.account.ended(2)
        assert {(call.end.status, call.end.ending) for call in told} == {(Status.RESOURCE_EXHAUSTED, Ending.BY_LOOM)}


@pytest.mark.parametrize("greeting", [b"", bytes([0, 3, 0, 0, 0, 0])], ids=["any", "no pushes"])
@pytest.mark.parametrize("answers", ["rule", "no backend"])
async def test_a_call_that_loom_answers_may_be_cancelled_right_behind_and_the_next_one_is_answered(
    answers: str, greeting: bytes
) -> None:
    class Aborting(Asked):
        def for_call(self, call: int | None, method: str) -> CallInterception | None:
            return self  # of one that was cancelled nothing more is told

    asked = Aborting(abort=(Status.UNAVAILABLE, "no more")) if answers == "rule" else None
    async with (
        serving(Backend()) as (_, port),
        proxied(port if asked else 1, interception=asked) as front,
        client(front.port, PREFACE + wire.frame(framing.SETTINGS, 0, 0, greeting)) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS) + reset(1, 8) + caller.block(3, REQUEST_HEADERS, end=True))
        assert (await caller.headers())[0] == 3
        first, second = await front.account.ended(2)
        assert (first.end.status, first.end.ending) == (Status.CANCELLED, Ending.RESET_BY_CLIENT)
        assert (second.end.status, second.end.ending) == (Status.UNAVAILABLE, Ending.BY_LOOM)
        assert not front.account.counts["broken loom"]


async def test_a_call_that_is_held_goes_on_when_it_may_and_one_that_is_cancelled_meanwhile_does_not() -> None:
    may_go = asyncio.Event()

    async def hold() -> None:
        await may_go.wait()

    asked = Asked(hold=hold, added=((b"x-held", b"yes"),))
    async with path(interception=asked) as through:
        unary = through.channel.unary_unary("/test.Interop/Unary")
        first, second = unary(b"first"), unary(b"second")
        await through.account.until(lambda: len(through.account.calls) == 2)
        second.cancel()
        await through.account.until(lambda: any(call.ended for call in through.account.calls.values()))
        assert through.backend.seen == []

        async def holds_one() -> bool:
            return len(through.front.proxy._holds) == 1

        await eventually(holds_one)
        may_go.set()
        assert await first == b"first"
        assert [(seen.requests, dict(seen.metadata)["x-held"]) for seen in through.backend.seen] == [
            ([b"first"], "yes")
        ]


async def test_connections_change_lanes_under_load_without_a_failed_call() -> None:
    asked = Asked(added=((b"x-lane", b"intercept"),), is_active=False)
    backend = Backend()
    done = 0
    async with serving(backend) as (_, port), proxied(port, interception=asked) as front:
        target = f"127.0.0.1:{front.port}"
        async with grpc.aio.insecure_channel(target, options=UNLIMITED) as channel:
            is_over = False

            async def call_again_and_again() -> None:
                nonlocal done
                while not is_over:
                    assert await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
                    done += 1

            callers = [asyncio.create_task(call_again_and_again()) for _ in range(4)]
            for turn in range(6):
                before = len(backend.seen)
                asked.is_active = turn % 2 == 0
                front.proxy.switch_lanes()
                expected = "intercept" if asked.is_active else None

                async def has_moved(before: int = before, expected: str | None = expected) -> bool:
                    later = backend.seen[before:]
                    return bool(later) and dict(later[-1].metadata).get("x-lane") == expected

                await eventually(has_moved)
            is_over = True
            await asyncio.gather(*callers)
    assert done >= 6


@pytest.mark.parametrize("side", ["client", "backend"])
async def test_a_peer_that_breaks_http_2_ends_its_connection_and_no_other(side: str) -> None:
    nonsense = wire.frame(framing.DATA, 0, 77, b"on a stream that there is not")

    async def script(peer: Peer) -> None:
        await peer.headers()
        if side == "backend":
            peer.send(nonsense)
        await peer.end()

    async with scripted(script) as port, proxied(port, interception=Untouched()) as front:
        async with client(front.port) as caller:
            caller.send(caller.block(1, REQUEST_HEADERS))
            await front.account.until(lambda: bool(front.account.calls))
            if side == "client":
                caller.send(nonsense)
            with contextlib.suppress(ConnectionError):
                await caller.end()
        told = await front.account.one()
        assert told.end.status is Status.UNAVAILABLE
        async with client(front.port) as another:
            await another.next(framing.SETTINGS)
