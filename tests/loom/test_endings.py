"""How calls end, told by Loom as a real client sees it: the backend does what no library does on purpose."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import grpc
import pytest

from app.loom.call import Ending, Status
from app.loom.proxy import framing
from app.loom.proxy.interception import Interception
from tests.loom import wire
from tests.loom.account import WAIT_S
from tests.loom.conftest import UNLIMITED, proxied
from tests.loom.raw import Peer, client, scripted
from tests.loom.test_interop import assert_metadata
from tests.loom.wire import OK_TRAILERS, REQUEST_HEADERS, RESPONSE_HEADERS, data, frame, goaway, message, reset

HTML = ("content-type", "text/html")
Answer = Callable[[Peer, int], bytes]


def in_one_block(*fields: tuple[str, str]) -> Answer:
    return lambda peer, stream: peer.block(stream, list(fields), end=True)


def after_headers(last: Callable[[int], bytes]) -> Answer:
    return lambda peer, stream: peer.block(stream, RESPONSE_HEADERS) + data(stream, message(b"answer")) + last(stream)


def reset_with(code: int) -> Answer:
    return after_headers(lambda stream: reset(stream, code))


def with_trailers(*fields: tuple[str, str], body: bytes = message(b"answer")) -> Answer:
    return lambda peer, stream: (
        peer.block(stream, RESPONSE_HEADERS) + data(stream, body) + peer.block(stream, list(fields), end=True)
    )


ENDS: dict[str, tuple[Answer, Ending]] = {
    "trailers": (with_trailers(("grpc-status", "0")), Ending.TRAILERS),
    "an error": (with_trailers(("grpc-status", "9"), ("grpc-message", "not%20now")), Ending.TRAILERS),
    "trailers only": (in_one_block(*RESPONSE_HEADERS, ("grpc-status", "5")), Ending.TRAILERS_ONLY),
    "trailers without a status": (with_trailers(("x-some", "trailer")), Ending.TRAILERS),
    "a status that is no number": (with_trailers(("grpc-status", "fine")), Ending.TRAILERS),
    "a status that there is not": (with_trailers(("grpc-status", "42")), Ending.TRAILERS),
    "HTTP 503": (in_one_block((":status", "503"), HTML), Ending.TRAILERS_ONLY),
    "HTTP 503 that is not ended": (
        lambda peer, stream: peer.block(stream, [(":status", "503"), HTML]) + data(stream, b"<html>"),
        Ending.RESET_BY_CLIENT,
    ),
    "HTTP 404": (in_one_block((":status", "404"), HTML), Ending.TRAILERS_ONLY),
    "HTTP 401": (in_one_block((":status", "401"), HTML), Ending.TRAILERS_ONLY),
    "HTTP 500": (in_one_block((":status", "500"), HTML), Ending.TRAILERS_ONLY),
    "HTTP 503 with a status": (in_one_block((":status", "503"), ("grpc-status", "8")), Ending.TRAILERS_ONLY),
    "data that ends the stream": (after_headers(lambda stream: data(stream, b"", end=True)), Ending.NO_TRAILERS),
    **{f"reset {code}": (reset_with(code), Ending.RESET_BY_BACKEND) for code in (0, 1, 2, 3, 7, 8, 11, 12, 13)},
    "reset before an answer": (lambda _, stream: reset(stream, 2), Ending.RESET_BY_BACKEND),
    "goaway": (lambda _, stream: goaway(0), Ending.REFUSED),
    "continuations": (
        lambda peer, stream: (
            peer.block(stream, [*RESPONSE_HEADERS, ("x-long", "v" * 500)], in_frames=5)
            + b"".join(data(stream, bytes([byte])) for byte in message(b"answer"))
            + data(stream, b"")
            + peer.block(stream, OK_TRAILERS, end=True, in_frames=2)
        ),
        Ending.TRAILERS,
    ),
    "an empty message": (with_trailers(("grpc-status", "0"), body=message(b"")), Ending.TRAILERS),
}


@pytest.mark.parametrize("name", list(ENDS))
async def test_the_status_told_is_the_one_that_the_client_got(name: str, interception: Interception | None) -> None:
    answer, ending = ENDS[name]

    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        await peer.next(framing.DATA)
        peer.send(answer(peer, stream))
        await peer.end()

    async with scripted(script) as port, proxied(port, interception=interception) as front:
        options = [*UNLIMITED, ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}", options=options) as channel:
            call = channel.unary_stream("/test.Raw/Call")(b"ask", timeout=30)
            responses = []
            with contextlib.suppress(grpc.aio.AioRpcError):
                while (response := await call.read()) is not grpc.aio.EOF:
                    responses.append(response)
            got = Status((await call.code()).value[0])
        told = (await front.account.ended())[0]
        assert told.end.status is got, f"{await call.details()}"
        assert told.end.ending is ending
        if ending in (Ending.TRAILERS, Ending.TRAILERS_ONLY):
            assert_metadata(
                told.end.trailers, [pair for pair in await call.trailing_metadata() if pair[0] != "grpc-status"]
            )
        assert told.requests == [b"ask"]
        assert told.responses[: len(responses)] == responses


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_backend_that_dies_in_mid_stream_is_unavailable(
    half_closed: bool, interception: Interception | None
) -> None:
    may_die = asyncio.Event()

    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS) + data(stream, message(b"first") + message(b"second")[:-2]))
        await asyncio.wait_for(may_die.wait(), WAIT_S)
        if half_closed:
            peer.writer.write_eof()
            await peer.end()

    async with scripted(script) as port, proxied(port, interception=interception) as front:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            call = channel.unary_stream("/test.Raw/Call")(b"ask")
            assert await call.read() == b"first"
            may_die.set()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.UNAVAILABLE, Ending.BACKEND_LOST)
        assert told.responses == [b"first"]
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert front.account.lost == [(1, True)]


@pytest.mark.parametrize("is_abrupt", [False, True])
async def test_a_client_that_vanishes_ends_its_calls_and_is_not_held_against_the_backend(
    is_abrupt: bool, interception: Interception | None
) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.headers()
        reached.set()
        await peer.gone()
        gone.set()

    async with scripted(script) as port, proxied(port, interception=interception) as front:
        async with client(front.port) as caller:
            caller.send(caller.block(1, REQUEST_HEADERS))
            await asyncio.wait_for(reached.wait(), WAIT_S)
            caller.writer.transport.abort() if is_abrupt else caller.writer.close()
            await asyncio.wait_for(gone.wait(), WAIT_S)
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.CANCELLED, Ending.CLIENT_LOST)
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert front.account.lost == [(1, False)]


def test_the_frames_that_are_sent_by_hand_are_the_ones_meant() -> None:
    assert frame(framing.RST_STREAM, 0, 1, b"\0\0\0\x08") == reset(1, 8)
    assert wire.settings(max_concurrent_streams=1) == bytes([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1])
