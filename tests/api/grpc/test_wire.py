"""What no gRPC library would send: the server answers it, leaves nothing behind and goes on."""

from __future__ import annotations

import asyncio
import gzip
import resource
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from app.api.grpc.options import ServerOptions
from app.api.grpc.server import GrpcServer
from app.proto.template.v1.template_pb2 import GetTemplateDetailsResponse
from tests.api.grpc.conftest import Running
from tests.api.grpc.fake_cache import FakeCache, service_over
from tests.api.grpc.raw_client import Header, RawClient, message, raw_client
from tests.faults.polling import until

GET = "/template.v1.TemplateService/GetTemplateDetails"
WATCH_HEALTH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
REQUEST = message(b"\x08\x01")
GZIP = [("grpc-encoding", "gzip")]
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 3, 4, 8, 12, 13
LONG = "x" * 200_000
"""More than an HTTP/2 window, which is 65,535 bytes unless the client says otherwise."""


@pytest.fixture(autouse=True)
async def nothing_is_left(running: Running) -> AsyncIterator[None]:
    """After each test the server answers, and has no task that it did not have before."""
    assert (await running.get(1)).template.id == 1
    before = _tasks()
    yield
    running.cache.hold = None
    assert (await running.get(1)).template.id == 1
    await until(lambda: not _tasks() - before, "no task is left", 10)


def _tasks() -> set[asyncio.Task[Any]]:
    # gRPC waits for the next call in a task, a new one after each call.
    waiting = {task for task in asyncio.all_tasks() if "AioServer._request_" in repr(task)}
    return {task for task in asyncio.all_tasks() - waiting if task is not asyncio.current_task()}


async def is_answered(client: RawClient) -> bool:
    answer = await client.call(GET, REQUEST)
    return answer.status == OK and GetTemplateDetailsResponse.FromString(answer.data[5:]).template.id == 1


@pytest.mark.parametrize(
    ("body", "metadata", "status", "text"),
    [
        (message(b""), [], INVALID_ARGUMENT, "id: must be a whole number from 1 to 9223372036854775807"),
        (message(b"\xff\xff\xff"), [], INVALID_ARGUMENT, "its bytes cannot be decoded as one"),
        (REQUEST[:-1], [], INVALID_ARGUMENT, "the call carries no whole message"),
        (REQUEST[:3], [], INVALID_ARGUMENT, "the call carries no whole message"),
        (message(b"\x08\x01", flag=1), [], INTERNAL, "Compression bit set but no encoding configured"),
        (message(b"no gzip", flag=1), GZIP, INTERNAL, "Decompression failed"),
        (message(b"\x08\x01", flag=1), [("grpc-encoding", "snappy")], INTERNAL, "grpc-encoding"),
        (message(bytes(1 << 20) + b"\0"), [], RESOURCE_EXHAUSTED, "larger than max (1048577 vs. 1048576)"),
        (b"\0\xff\xff\xff\xff", [], RESOURCE_EXHAUSTED, "larger than max (4294967295 vs. 1048576)"),
        (message(gzip.compress(bytes(64 << 20)), flag=1), GZIP, RESOURCE_EXHAUSTED, "larger than max"),
        (REQUEST, [("a", "x" * 20_000)], RESOURCE_EXHAUSTED, "metadata size exceeds hard limit"),
        (REQUEST, [(f"key-{number}", "x" * 50) for number in range(400)], RESOURCE_EXHAUSTED, ""),
        (REQUEST, [("a-bin", "no base64!")], INTERNAL, "illegal base64"),
        (REQUEST, [("grpc-timeout", "soon")], INTERNAL, "grpc-timeout"),
    ],
    ids=[
        "empty message",
        "malformed message",
        "cut message",
        "cut prefix",
        "compressed without an encoding",
        "not what its encoding says",
        "unknown encoding",
        "too large",
        "announced as 4 GiB",
        "too large when decompressed",
        "too long metadata",
        "too much metadata",
        "bad binary metadata",
        "bad deadline",
    ],
)
async def test_a_bad_call_has_its_status_and_the_connection_goes_on(
    running: Running, body: bytes, metadata: Sequence[Header], status: int, text: str
) -> None:
    async with raw_client(running.port) as client:
        answer = await client.call(GET, body, metadata)
        assert answer.status == status
        assert text in answer.headers.get("grpc-message", "")
        assert answer.data == b""
        assert await is_answered(client)
        assert client.goaway is None


@pytest.mark.parametrize("path", [GET, WATCH_HEALTH])
async def test_a_call_that_ends_before_any_message_is_answered(running: Running, path: str) -> None:
    """By itself, gRPC would wait in a task for as long as the client stays, and the client would wait too."""
    async with raw_client(running.port) as client:
        _, answer = client.open(path, end=True)
        await asyncio.wait_for(answer.ended.wait(), 10)
        assert answer.status == INVALID_ARGUMENT


async def test_a_stream_that_ends_before_any_message_ends_well(running: Running) -> None:
    async with raw_client(running.port) as client:
        _, answer = client.open(REFLECTION, end=True)
        await asyncio.wait_for(answer.ended.wait(), 10)
        assert answer.status == OK


@pytest.mark.parametrize("path", [WATCH_HEALTH, REFLECTION])
async def test_a_malformed_message_ends_a_call_that_streams(running: Running, path: str) -> None:
    async with raw_client(running.port) as client:
        answer = await client.call(path, message(b"\xff\xff\xff"))
        assert answer.status == INVALID_ARGUMENT
        assert await is_answered(client)


@pytest.mark.parametrize("path", ["/template.v1.TemplateService/Nix", "/nix.v1.Nix/Get", "nix", "//", "/"])
async def test_what_the_server_does_not_have_is_unimplemented(running: Running, path: str) -> None:
    async with raw_client(running.port) as client:
        answer = await client.call(path, REQUEST)
        assert (answer.status, answer.headers["grpc-message"]) == (UNIMPLEMENTED, "this server has no such method")


async def test_a_deadline_that_has_passed_on_arrival_leaves_no_read(running: Running) -> None:
    running.cache.hold = asyncio.Event()
    async with raw_client(running.port) as client:
        number, answer = client.open(GET, [("grpc-timeout", "1n")])
        await client.send(number, REQUEST)
        await asyncio.wait_for(answer.ended.wait(), 10)
        assert answer.status == DEADLINE_EXCEEDED or answer.reset is not None
    begun = len(running.cache.asked) - 1  # the first is the fixture's
    await until(lambda: len(running.cache.cancellations) == begun, "no read goes on")


@pytest.mark.parametrize(
    "sent", [b"", REQUEST[:3], REQUEST[:-1], REQUEST], ids=["nothing", "half a prefix", "half a message", "all"]
)
@pytest.mark.parametrize("leaves", ["by reset", "by closing"])
async def test_a_call_dropped_at_any_stage_leaves_nothing(running: Running, sent: bytes, leaves: str) -> None:
    running.cache.hold = asyncio.Event()
    running.cache.begun.clear()
    async with raw_client(running.port) as client:
        number, _ = client.open(GET)
        await client.send(number, sent, end=sent == REQUEST)
        if sent == REQUEST:
            await asyncio.wait_for(running.cache.begun.wait(), 10)
        if leaves == "by reset":
            client.reset(number)
            running.cache.hold.set()
            assert await is_answered(client)


async def test_a_client_that_opens_calls_and_sends_nothing_keeps_nobody_else_waiting(running: Running) -> None:
    async with raw_client(running.port) as silent, raw_client(running.port) as other:
        for _ in range(200):
            silent.open(GET)
        assert await is_answered(other)
        assert await is_answered(silent)


async def test_a_client_that_never_reads_keeps_nobody_else_waiting_and_its_calls_end_with_its_connection(
    running: Running,
) -> None:
    running.cache.body = LONG
    async with raw_client(running.port, reads=False) as deaf:
        answers = []
        for _ in range(20):
            number, answer = deaf.open(GET)
            await deaf.send(number, REQUEST)
            answers.append(answer)
        await until(lambda: len(running.cache.asked) == 21, "all calls are there")
        running.cache.body = "short"
        async with raw_client(running.port) as other:
            assert await is_answered(other)
        assert not any(answer.ended.is_set() for answer in answers)


async def test_a_drain_does_not_wait_for_a_client_that_never_reads_past_its_limit(running: Running) -> None:
    running.cache.body = LONG
    server = GrpcServer(service_over(running.cache), "127.0.0.1", 0)
    async with raw_client(await server.start(), reads=False) as deaf:
        number, _ = deaf.open(GET)
        await deaf.send(number, REQUEST)
        await until(lambda: len(running.cache.asked) == 2, "the call is there")
        await asyncio.wait_for(server.drain(0.2), 10)


async def test_a_connection_past_its_age_ends_with_its_grace_though_its_client_never_reads() -> None:
    options = ServerOptions(max_connection_age_s=0.1, max_connection_age_grace_s=0.1)
    server = GrpcServer(service_over(FakeCache(body=LONG)), "127.0.0.1", 0, options=options)
    async with raw_client(await server.start(), reads=False) as deaf:
        number, _ = deaf.open(GET)
        await deaf.send(number, REQUEST)
        await asyncio.wait_for(deaf.closed.wait(), 10)
        assert deaf.goaway == 0
    await server.drain(1)


async def test_more_calls_at_a_time_than_a_connection_may_have_are_refused_one_by_one() -> None:
    cache = FakeCache(hold=asyncio.Event())
    server = GrpcServer(service_over(cache), "127.0.0.1", 0, options=ServerOptions(max_streams=5))
    async with raw_client(await server.start()) as client:
        answers = []
        for _ in range(5):
            number, answer = client.open(GET)
            await client.send(number, REQUEST)
            answers.append(answer)
        assert client.most_streams == 5
        assert cache.hold is not None
        cache.hold.set()
        await asyncio.wait_for(asyncio.gather(*(answer.ended.wait() for answer in answers)), 10)
        assert await is_answered(client)
    await server.drain(1)


async def test_a_client_that_hangs_is_given_up_and_its_calls_with_it() -> None:
    cache = FakeCache(hold=asyncio.Event())
    options = ServerOptions(keepalive_time_s=0.1, keepalive_timeout_s=0.1)
    server = GrpcServer(service_over(cache), "127.0.0.1", 0, options=options)
    async with raw_client(await server.start()) as client:
        number, _ = client.open(GET)
        await client.send(number, REQUEST)
        await asyncio.wait_for(cache.begun.wait(), 10)
        client.hang()
        await asyncio.wait_for(cache.cancelled.wait(), 30)
    await server.drain(1)


async def test_a_client_that_probes_too_often_is_told_to_go() -> None:
    server = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0, options=ServerOptions(min_ping_interval_s=60))
    async with raw_client(await server.start()) as client:
        for _ in range(5):
            client.write(bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"8 octets")
        await asyncio.wait_for(client.closed.wait(), 10)
        assert client.goaway == 0xB  # ENHANCE_YOUR_CALM
    await server.drain(1)


@pytest.mark.parametrize(
    "octets",
    [
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(range(256)),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\4\1\4\0\0\0\1\xff\xff\xff\xff",
    ],
    ids=["zeros", "HTTP/1.1", "TLS", "HTTP/2 then garbage", "HTTP/2 then garbled headers"],
)
async def test_who_does_not_speak_http_2_is_closed(running: Running, octets: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(octets)
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_garbage_in_the_middle_of_a_connection_ends_its_calls_and_no_others(running: Running) -> None:
    running.cache.hold = asyncio.Event()
    running.cache.begun.clear()
    async with raw_client(running.port) as client:
        number, _ = client.open(GET)
        await client.send(number, REQUEST)
        await asyncio.wait_for(running.cache.begun.wait(), 10)
        client.write(b"\xff" * 1000)
        await asyncio.wait_for(client.closed.wait(), 10)
    await asyncio.wait_for(running.cache.cancelled.wait(), 10)
    assert running.cache.cancellations == [1]


async def test_with_a_thousand_idle_connections_calls_are_answered(running: Running) -> None:
    count = _sockets_for(1_000)
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writers.append(writer)
    assert (await running.get(1)).template.id == 1
    async with raw_client(running.port) as client:
        assert await is_answered(client)
    for writer in writers:
        writer.close()


async def test_a_flood_of_connections_that_are_dropped_at_once_is_survived(running: Running) -> None:
    async def one() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        writer.transport.abort()

    for _ in range(10):
        await asyncio.gather(*(one() for _ in range(_sockets_for(100))))
    async with raw_client(running.port) as client:
        assert await is_answered(client)


async def test_a_flood_of_resets_is_survived(running: Running) -> None:
    """HTTP/2 Rapid Reset, CVE-2023-44487."""
    running.cache.hold = asyncio.Event()
    async with raw_client(running.port) as client:
        for _ in range(500):
            number, _ = client.open(GET)
            client.reset(number)
        await asyncio.sleep(0)
        running.cache.hold.set()
        async with raw_client(running.port) as other:
            assert await is_answered(other)


def _sockets_for(connections: int) -> int:
    """So many, or as many as this process may have both ends of."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * connections + 200:
        wanted = 2 * connections + 200
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return min(connections, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip", "gzip"), ("identity,deflate,gzip", "gzip"), ("identity", None), (None, None)],
)
async def test_a_long_answer_is_compressed_for_who_accepts_it_and_a_short_one_for_nobody(
    running: Running, accepted: str | None, encoding: str | None
) -> None:
    metadata = [] if accepted is None else [("grpc-accept-encoding", accepted)]
    async with raw_client(running.port) as client:
        short = await client.call(GET, REQUEST, metadata)
        running.cache.body = LONG[:60_000]
        long = await client.call(GET, REQUEST, metadata)
    assert short.data[0] == 0
    assert GetTemplateDetailsResponse.FromString(short.data[5:]).template.id == 1
    assert long.data[0] == (0 if encoding is None else 1)
    assert long.headers.get("grpc-encoding") == encoding
    payload = long.data[5:] if encoding is None else gzip.decompress(long.data[5:])
    assert GetTemplateDetailsResponse.FromString(payload).template.body == LONG[:60_000]


async def test_compression_can_be_switched_off() -> None:
    options = ServerOptions(compression_min_bytes=0)
    server = GrpcServer(service_over(FakeCache(body=LONG[:60_000])), "127.0.0.1", 0, options=options)
    async with raw_client(await server.start()) as client:
        answer = await client.call(GET, REQUEST, [("grpc-accept-encoding", "gzip")])
    assert answer.data[0] == 0
    await server.drain(1)


async def test_a_compressed_request_is_read(running: Running) -> None:
    async with raw_client(running.port) as client:
        answer = await client.call(GET, message(gzip.compress(b"\x08\x01"), flag=1), GZIP)
    assert answer.status == OK


async def test_answers_of_a_stream_are_compressed_one_by_one(running: Running) -> None:
    """Reflection's first answer is short, its second long."""
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

    asked = [
        ServerReflectionRequest(list_services="*"),
        ServerReflectionRequest(file_containing_symbol="template.v1.Template"),
    ]
    body = b"".join(message(request.SerializeToString()) for request in asked)
    async with raw_client(running.port) as client:
        answer = await client.call(REFLECTION, body, [("grpc-accept-encoding", "gzip")])
    length = int.from_bytes(answer.data[1:5], "big")
    assert (answer.data[0], answer.data[5 + length]) == (0, 1)


async def test_an_answer_past_the_limit_is_not_sent() -> None:
    options = ServerOptions(max_send_bytes=2048, compression_min_bytes=0)
    server = GrpcServer(service_over(FakeCache(body="x" * 5000)), "127.0.0.1", 0, options=options)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(GET)(b"\x08\x01", timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.drain(1)
