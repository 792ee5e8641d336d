"""gRPC's own interoperability cases (https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md) through
the proxy: a real client, a real server, and Loom's account of each call compared with what both of them saw.

That not a byte was changed is asserted at the end of each, by the fixture.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from app.loom.call import Ending, Status, StreamKind, binary_value
from app.loom.proxy import status
from app.loom.proxy.interception import Interception
from tests.loom.account import WAIT_S, Call, values
from tests.loom.backend import ECHO_INITIAL, ECHO_TRAILING, Seen
from tests.loom.conftest import Path, path

SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
TIMEOUT_S = 60.0
Metadata = Sequence[tuple[str, str | bytes]]


async def stream(requests: Sequence[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


async def outcome(call: Any) -> tuple[Status, str]:
    """The status and message that the client got."""
    return Status((await call.code()).value[0]), await call.details()


def assert_metadata(headers: tuple[tuple[bytes, bytes], ...], metadata: Any) -> None:
    """All that a peer was shown is in Loom's account, in order."""
    shown = [(key.encode(), value if isinstance(value, bytes) else str(value).encode()) for key, value in metadata]
    names = {key for key, _ in shown}
    told = [(key, binary_value(value) if key.endswith(b"-bin") else value) for key, value in headers if key in names]
    assert sorted(told) == sorted(shown)
    for name in names:  # the order that counts is that of one name's values
        assert [v for k, v in told if k == name] == [v for k, v in shown if k == name]


async def assert_account(through: Path, call: Any, seen: Seen, responses: Sequence[bytes]) -> Call:
    """Loom's account of the only call is what client and backend saw."""
    told = await through.account.one()
    assert told.method == seen.method
    assert told.requests == seen.requests
    assert told.responses == list(responses)
    assert (told.end.status, told.end.message) == await outcome(call)
    assert_metadata(told.started.headers, seen.metadata)
    assert_metadata(told.answered.headers if told.answered else (), await call.initial_metadata())
    assert_metadata(told.end.trailers, await call.trailing_metadata())
    assert values(told.started.headers, "te") == [b"trailers"]
    assert values(told.started.headers, "content-type") == [b"application/grpc"]
    assert told.started.authority == f"127.0.0.1:{through.before.port}"
    return told


@pytest.mark.parametrize(
    ("request_bytes", "response_bytes"), [(b"", b""), (b"sizes 314159".ljust(271_828), b"r" * 314_159)]
)
async def test_empty_and_large_unary(through: Path, request_bytes: bytes, response_bytes: bytes) -> None:
    call = through.channel.unary_unary("/test.Interop/Unary")(request_bytes, timeout=TIMEOUT_S)
    assert await call == response_bytes
    told = await assert_account(through, call, through.backend.seen[0], [response_bytes])
    assert (told.end.kind, told.end.ending, told.end.http_status) == (StreamKind.UNARY, Ending.TRAILERS, 200)
    assert told.half_closed
    assert told.started.timeout_s == pytest.approx(TIMEOUT_S, rel=0.05)


async def test_client_streaming(through: Path) -> None:
    sizes = (27_182, 8, 1_828, 45_904)
    call = through.channel.stream_unary("/test.Interop/ClientStream")(stream([b"x" * size for size in sizes]))
    assert await call == b"74922"
    told = await assert_account(through, call, through.backend.seen[0], [b"74922"])
    assert [len(request) for request in told.requests] == list(sizes)
    assert told.end.kind is StreamKind.CLIENT_STREAMING
    assert told.started.timeout_s is None


async def test_server_streaming(through: Path) -> None:
    call = through.channel.unary_stream("/test.Interop/ServerStream")(b"sizes 31415 9 2653 58979")
    responses = [response async for response in call]
    assert [len(response) for response in responses] == [31_415, 9, 2_653, 58_979]
    told = await assert_account(through, call, through.backend.seen[0], responses)
    assert told.end.kind is StreamKind.SERVER_STREAMING


async def test_ping_pong(through: Path) -> None:
    call = through.channel.stream_stream("/test.Interop/Bidi")()
    responses = []
    for size in (31_415, 9, 2_653, 58_979):
        await call.write(b"sizes %d" % size)
        responses.append(await call.read())
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    told = await assert_account(through, call, through.backend.seen[0], responses)
    assert told.end.kind is StreamKind.BIDI_STREAMING
    assert [message.direction.value for message in told.messages] == ["request", "response"] * 4


async def test_empty_stream(through: Path) -> None:
    call = through.channel.stream_stream("/test.Interop/Bidi")()
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    told = await assert_account(through, call, through.backend.seen[0], [])
    assert told.messages == []
    assert told.half_closed


async def test_compressed_unary_both_ways(interception: Interception | None) -> None:
    async with path(compression=grpc.Compression.Gzip, interception=interception) as through:
        call = through.channel.unary_unary("/test.Interop/Unary")(b"x" * 50_000, compression=grpc.Compression.Gzip)
        assert await call == b"x" * 50_000
        told = await through.account.one()
        assert through.backend.seen[0].requests == [b"x" * 50_000]
        assert [message.compressed for message in told.messages] == [True, True]
        assert all(message.size < 1_000 and message.data for message in told.messages)
        assert values(told.started.headers, "grpc-encoding") == [b"gzip"]


async def test_compressed_streaming_both_ways(interception: Interception | None) -> None:
    async with path(compression=grpc.Compression.Gzip, interception=interception) as through:
        call = through.channel.stream_stream("/test.Interop/Bidi")(
            stream([b"sizes 31415 92653" + b" " * 500, b"sizes 5"]), compression=grpc.Compression.Gzip
        )
        assert [len(response) async for response in call] == [31_415, 92_653, 5]
        told = await through.account.one()
        assert (told.end.requests, told.end.responses, told.end.status) == (2, 3, Status.OK)
        assert [message.compressed for message in told.messages if message.size > 20] == [True, True, True]


@pytest.mark.parametrize("streaming", [False, True])
async def test_custom_metadata(through: Path, streaming: bool) -> None:
    metadata: Metadata = (
        (ECHO_INITIAL, "test_initial_metadata_value"),
        (ECHO_TRAILING, b"\xab\xab\xab"),
        ("x-twice", "first"),
        ("x-between", "b"),
        ("x-twice", "second"),
        ("x-raw-bin", bytes(range(256))),
    )
    if streaming:
        call = through.channel.stream_stream("/test.Interop/Bidi")(stream([b"sizes 1"]), metadata=metadata)
        responses = [response async for response in call]
    else:
        call = through.channel.unary_unary("/test.Interop/Unary")(b"sizes 1", metadata=metadata)
        responses = [await call]
    told = await assert_account(through, call, through.backend.seen[0], responses)
    assert told.answered is not None
    assert values(told.answered.headers, ECHO_INITIAL) == [b"test_initial_metadata_value"]
    assert values(told.started.headers, "x-twice") == [b"first", b"second"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("message", ["test status message", SPECIAL_MESSAGE])
async def test_status_code_and_message(through: Path, streaming: bool, message: str) -> None:
    metadata: Metadata = (("x-status", "2"), ("x-message-bin", message.encode()))
    if streaming:
        call = through.channel.stream_stream("/test.Interop/Bidi")(stream([b"sizes 3"]), metadata=metadata)
        assert await call.read() == b"rrr"
    else:
        call = through.channel.unary_unary("/test.Interop/Unary")(b"ask", metadata=metadata)
    assert await outcome(call) == (Status.UNKNOWN, message)
    told = await assert_account(through, call, through.backend.seen[0], [b"rrr"] if streaming else [])
    assert told.end.ending is (Ending.TRAILERS if streaming else Ending.TRAILERS_ONLY)
    assert values(told.end.trailers, "x-why") == [b"asked for"]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_code_of_a_trailers_only_answer(through: Path, code: grpc.StatusCode) -> None:
    call = through.channel.unary_unary("/test.Interop/Unary")(b"ask", metadata=(("x-status", str(code.value[0])),))
    assert await call.code() is code
    told = await through.account.one()
    assert (told.end.status, told.end.ending) == (Status(code.value[0]), Ending.TRAILERS_ONLY)


@pytest.mark.parametrize("method", ["/test.Interop/NoSuchMethod", "/test.NoSuchService/Unary"])
async def test_unimplemented_method_and_service(through: Path, method: str) -> None:
    call = through.channel.unary_unary(method)(b"ask")
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    told = await through.account.one()
    assert (told.method, told.end.status, told.end.message) == (method, Status.UNIMPLEMENTED, await call.details())


async def test_cancel_after_begin(through: Path) -> None:
    call = through.channel.stream_unary("/test.Interop/ClientStream")()
    await call.write(b"begun")
    await asyncio.wait_for(through.backend.arrived.wait(), WAIT_S)
    call.cancel()
    told = await through.account.one()
    assert (told.end.status, told.end.ending, told.end.reset_code) == (Status.CANCELLED, Ending.RESET_BY_CLIENT, 8)
    assert not told.half_closed  # what is cancelled must not look like the end of the upload
    seen = through.backend.seen[0]
    await asyncio.wait_for(seen.done.wait(), WAIT_S)
    assert seen.requests == [b"begun"]


async def test_cancel_after_first_response(through: Path) -> None:
    call = through.channel.stream_stream("/test.Interop/Bidi")()
    await call.write(b"sizes 31415")
    assert len(await call.read()) == 31_415
    call.cancel()
    told = await through.account.one()
    assert (told.end.status, told.end.ending, told.end.responses) == (Status.CANCELLED, Ending.RESET_BY_CLIENT, 1)
    await asyncio.wait_for(through.backend.seen[0].done.wait(), WAIT_S)


async def test_timeout_on_sleeping_server(through: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where headers are read late, on a busy machine, a reset at the deadline comes soon after them.
    monkeypatch.setattr(status, "SLACK_S", 1.5)
    await through.channel.channel_ready()  # its time runs from the call on
    call = through.channel.unary_unary("/test.Interop/Sleep")(b"ask", timeout=3.0)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    told = await through.account.one()
    assert told.end.status is Status.DEADLINE_EXCEEDED
    remaining = through.backend.seen[0].time_remaining
    assert remaining is not None
    assert 0 < remaining <= 3.1
    assert told.started.timeout_s == pytest.approx(3.0, abs=1.0)


async def test_many_calls_at_once_are_all_told_of_and_none_is_mixed_up_with_another(through: Path) -> None:
    unary = through.channel.unary_unary("/test.Interop/Unary")
    requests = [b"%d " % number * 5_000 for number in range(1_000)]
    assert await asyncio.gather(*(unary(request) for request in requests)) == requests
    told = await through.account.ended(1_000)
    assert sorted(call.requests[0] for call in told) == sorted(requests)
    assert all(call.requests == call.responses and call.end.status is Status.OK for call in told)
