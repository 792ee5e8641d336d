"""HTTP/2 as it may be, though few peers send it so, in every lane: client and backend hear each other out, and Loom's
account of the call is what they sent and got."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import grpc
import pytest

from app.loom.call import Ending, Status, StreamKind
from app.loom.proxy import framing
from app.loom.proxy.interception import Interception
from app.loom.proxy.limits import Limits
from tests.loom.account import WAIT_S, Call
from tests.loom.conftest import Path, path, proxied
from tests.loom.raw import Heard, Peer, client, scripted
from tests.loom.wire import OK_TRAILERS, REQUEST_HEADERS, RESPONSE_HEADERS, data, goaway, message, reset

Fields = list[tuple[str, str]]
Content = tuple[Callable[[int], bytes], list[bytes]]
"""DATA frames of a stream, and the messages in them."""
CANCEL = 8


def content(messages: list[bytes], *frames: bytes | tuple[bytes, int]) -> Content:
    """Frames by their payload, and where they are padded by how much."""

    def written(stream: int) -> bytes:
        split = [each if isinstance(each, tuple) else (each, None) for each in frames]
        return b"".join(data(stream, payload, padding=padding) for payload, padding in split)

    return written, messages


ONE = message(b"one message")
MANY = [b"message %d" % number for number in range(9)]
CONTENTS: dict[str, Content] = {
    "one message": content([b"one message"], ONE),
    "padded": content([b"one message"], (ONE[:4], 0), (ONE[4:], 255), (b"", 9)),
    "an empty frame before, between and after": content([b"one message"], b"", ONE[:7], b"", ONE[7:], b""),
    "frames of one byte": content([b"one message"], *(bytes([byte]) for byte in ONE)),
    "empty messages": content([b"", b"", b""], message(b"") * 2 + message(b"")[:2], message(b"")[2:]),
    "many messages in a frame": content(
        [b"m%d" % n for n in range(9)], b"".join(message(b"m%d" % n) for n in range(9))
    ),
    "none": content([]),
}
ODD = [("x-b", "1"), ("x-a", "2"), ("x-b", "3"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-bin", "AAE"), ("x-none", "")]


async def exchange(
    interception: Interception | None, ask: Callable[[Peer], bytes], answer: Callable[[Peer, int], bytes]
) -> tuple[Heard, Heard, Call]:
    """A call: what the backend heard, what the client heard, and what Loom tells."""
    heard: asyncio.Queue[Heard] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        heard.put_nowait(await peer.stream())
        peer.send(answer(peer, 1))
        await peer.end()

    async with (
        scripted(script) as port,
        proxied(port, interception=interception) as front,
        client(front.port) as caller,
    ):
        caller.send(ask(caller))
        got = await caller.stream()
        return await asyncio.wait_for(heard.get(), WAIT_S), got, await front.account.one()


def assert_same(told: Call, asked: Heard, got: Heard) -> None:
    """The account against what both have heard, headers in order and all."""
    (request,) = asked.blocks
    assert fields(told.started.headers) == request
    assert told.method == dict(request)[":path"]
    assert (fields(told.answered.headers) if told.answered else None) == (got.blocks[0] if got.blocks[1:] else None)
    assert fields(told.end.trailers) == got.blocks[-1]
    assert b"".join(map(message, told.requests)) == asked.body
    assert b"".join(map(message, told.responses)) == got.body
    assert told.end.status is Status(int(dict(got.blocks[-1])["grpc-status"]))
    assert told.half_closed


def fields(headers: tuple[tuple[bytes, bytes], ...]) -> Fields:
    return [(name.decode(), value.decode()) for name, value in headers]


@pytest.mark.parametrize("name", CONTENTS)
async def test_messages_come_whole_however_they_are_cut_into_frames(
    name: str, interception: Interception | None
) -> None:
    written, messages = CONTENTS[name]
    asked, got, told = await exchange(
        interception,
        lambda peer: peer.block(1, REQUEST_HEADERS) + written(1) + data(1, b"", end=True),
        lambda peer, stream: (
            peer.block(stream, RESPONSE_HEADERS) + written(stream) + peer.block(stream, OK_TRAILERS, end=True)
        ),
    )
    assert asked.body == got.body == b"".join(map(message, messages))
    assert (told.requests, told.responses) == (messages, messages)
    assert_same(told, asked, got)
    is_stream = len(messages) != 1
    assert told.end.kind is StreamKind.of(client_streams=is_stream, server_streams=is_stream)


@pytest.mark.parametrize("last", [data(1, b"", end=True), data(1, ONE, end=True), data(1, ONE, end=True, padding=77)])
async def test_a_client_may_half_close_with_its_last_message_or_after_it(
    last: bytes, interception: Interception | None
) -> None:
    asked, got, told = await exchange(
        interception,
        lambda peer: peer.block(1, REQUEST_HEADERS) + data(1, ONE) + last,
        lambda peer, stream: (
            peer.block(stream, RESPONSE_HEADERS) + data(stream, ONE) + peer.block(stream, OK_TRAILERS, end=True)
        ),
    )
    assert asked.body == b"".join(map(message, told.requests))
    assert_same(told, asked, got)


@pytest.mark.parametrize("status", [0, 5])
async def test_trailers_only_stays_one_header_block_and_headers_keep_order_and_duplicates(
    status: int, interception: Interception | None
) -> None:
    only = [*RESPONSE_HEADERS, *ODD, ("grpc-status", str(status))]
    asked, got, told = await exchange(
        interception,
        lambda peer: peer.block(1, [*REQUEST_HEADERS, *ODD], end=True),
        lambda peer, stream: peer.block(stream, only, end=True),
    )
    assert asked.blocks == [[*REQUEST_HEADERS, *ODD]]
    assert (got.frames, got.blocks) == ([framing.HEADERS], [only])
    assert_same(told, asked, got)
    assert (told.end.ending, told.answered) == (Ending.TRAILERS_ONLY, None)


async def test_64_kb_of_metadata_pass_in_every_header_block(interception: Interception | None) -> None:
    large = [("x-large", "v" * 60_000), ("x-more-bin", "AAEC" * 1_000)]
    asked, got, told = await exchange(
        interception,
        lambda peer: peer.block(1, [*REQUEST_HEADERS, *large], in_frames=7) + data(1, ONE, end=True),
        lambda peer, stream: (
            peer.block(stream, [*RESPONSE_HEADERS, *large], in_frames=5)
            + data(stream, ONE)
            + peer.block(stream, [*OK_TRAILERS, *large], end=True, in_frames=9)
        ),
    )
    assert asked.blocks == [[*REQUEST_HEADERS, *large]]
    assert got.blocks == [[*RESPONSE_HEADERS, *large], [*OK_TRAILERS, *large]]
    assert_same(told, asked, got)


@pytest.mark.parametrize("code", [0, CANCEL])
async def test_an_early_answer_ends_the_call_whatever_the_client_still_sends(
    code: int, interception: Interception | None
) -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS), peer.block(stream, [("grpc-status", "3")], end=True))
        peer.send(reset(stream, 0))
        second, _ = await peer.headers()
        peer.send(peer.block(second, [*RESPONSE_HEADERS, *OK_TRAILERS], end=True))
        await peer.end()

    async with (
        scripted(script) as port,
        proxied(port, interception=interception) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        got = await caller.stream()
        assert got.blocks == [RESPONSE_HEADERS, [("grpc-status", "3")]]
        told = await front.account.one()
        caller.send(data(1, message(b"late")), reset(1, code), caller.block(3, REQUEST_HEADERS, end=True))
        assert (told.end.status, told.end.ending, told.end.reset_code) == (
            Status.INVALID_ARGUMENT, Ending.TRAILERS, None,
        )  # fmt: skip
        assert told.half_closed is None
        await front.account.ended(2)  # the connection goes on


@pytest.mark.parametrize("code", [0x0, 0x5, CANCEL, 0xB])
async def test_resets_pass_both_ways_with_their_code(code: int, interception: Interception | None) -> None:
    heard: asyncio.Queue[Heard] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        heard.put_nowait(await peer.stream())
        second, _ = await peer.headers()
        peer.send(reset(second, code))
        await peer.end()

    async with (
        scripted(script) as port,
        proxied(port, interception=interception) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS), data(1, ONE[:6]), reset(1, code))
        asked = await asyncio.wait_for(heard.get(), WAIT_S)
        assert asked.reset_code == code  # and no end of the stream before it
        caller.send(caller.block(3, REQUEST_HEADERS))
        assert (await caller.stream()).reset_code == code
        told = await front.account.ended(2)
        assert [(call.end.ending, call.end.reset_code, call.half_closed) for call in told] == [
            (Ending.RESET_BY_CLIENT, code, None),
            (Ending.RESET_BY_BACKEND, code, None),
        ]


async def test_what_came_before_a_reset_reaches_the_client_before_it(interception: Interception | None) -> None:
    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS), data(stream, message(b"last")), reset(stream, 0xB))
        await peer.end()

    async with (
        scripted(script) as port,
        proxied(port, interception=interception) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        got = await caller.stream()
        assert (got.blocks, got.body, got.reset_code) == ([RESPONSE_HEADERS], message(b"last"), 0xB)
        told = await front.account.one()
        assert (told.responses, told.end.reset_code) == ([b"last"], 0xB)
        assert told.end.status is Status.RESOURCE_EXHAUSTED


async def test_goaway_in_two_steps_lets_live_streams_finish(interception: Interception | None) -> None:
    first_asked, may_end = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        peer.send(goaway(0x7FFFFFFF))
        first_asked.set()
        await asyncio.wait_for(may_end.wait(), WAIT_S)
        peer.send(goaway(stream), peer.block(stream, RESPONSE_HEADERS), data(stream, message(b"answer")))
        peer.send(peer.block(stream, OK_TRAILERS, end=True))
        await peer.end()

    async with scripted(script) as port, proxied(port, interception=interception) as front:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            call = channel.unary_unary("/test.Raw/Call")(b"ask")
            await asyncio.wait_for(first_asked.wait(), WAIT_S)
            may_end.set()
            assert await call == b"answer"
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.OK, Ending.TRAILERS)


async def test_a_real_server_that_goes_away_finishes_what_it_has(through: Path) -> None:
    held = through.channel.unary_unary("/test.Interop/Held")(b"held")
    await asyncio.wait_for(through.backend.arrived.wait(), WAIT_S)
    stopping = asyncio.create_task(through.server.stop(WAIT_S))
    while through.before.connections[0].received.count(GOAWAY_HEAD) < 1:  # noqa: ASYNC110 - told by nobody
        await asyncio.sleep(0.01)
    through.backend.go_on.set()
    assert await held == b"held"
    await stopping
    told = await through.account.one()
    assert (told.end.status, told.end.ending) == (Status.OK, Ending.TRAILERS)
    await through.account.until(lambda: through.account.counts["disconnected"] == 1)
    assert through.account.lost[0][0] == 0


GOAWAY_HEAD = bytes([framing.GOAWAY, 0, 0, 0, 0, 0])
"""Of the frame's head, what follows the length: kind, flags, stream."""


async def test_one_stream_at_a_time_where_the_backend_allows_no_more(interception: Interception | None) -> None:
    async with path(server_options=[("grpc.max_concurrent_streams", 1)], interception=interception) as through:
        unary = through.channel.unary_unary("/test.Interop/Unary")
        requests = [b"%d" % number for number in range(20)]
        assert await asyncio.gather(*(unary(request) for request in requests)) == requests
        told = await through.account.ended(20)
        spans = sorted((call.started.at, call.end.at) for call in told)
        assert all(ended <= started for (_, ended), (started, _) in itertools.pairwise(spans))
        assert all(call.requests == call.responses and call.end.status is Status.OK for call in told)


async def test_20_mb_messages_pass_and_are_cut_in_the_account_only(through: Path) -> None:
    body = bytes(range(256)) * 80_000
    call = through.channel.unary_unary("/test.Interop/Unary")(body, metadata=(("x-large", "v" * 60_000),))
    assert await call == body
    assert dict(through.backend.seen[0].metadata)["x-large"] == "v" * 60_000
    told = await through.account.one()
    assert [(message.size, message.is_cut) for message in told.messages] == [(len(body), True)] * 2
    assert all(message.data == body[: Limits().message_bytes] for message in told.messages)
    assert (b"x-large", b"v" * 60_000) in told.started.headers
