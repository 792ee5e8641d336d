"""Answers without end over the service's own connections: who reads is waited for, who does not is let go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.api.http.arrivals import Arrivals
from app.api.http.disconnect import ClientDisconnectedError, while_connected
from app.api.http.protocol import BoundedHttpProtocol
from app.concurrency.unsent import unsent_bytes
from app.telemetry.plain import Count
from tests.faults.polling import until

TIMEOUT_S = 0.3
PATIENCE_S = 20.0
PIECE = b"x" * 65_536
SHORT = 2
"""Pieces: they fit into the kernel's buffer."""


@dataclass(frozen=True)
class Serving:
    app: Endless
    server: uvicorn.Server
    port: int

    @property
    def connection(self) -> BoundedHttpProtocol:
        """The only one."""
        (connection,) = self.server.server_state.connections
        assert isinstance(connection, BoundedHttpProtocol)
        return connection


class Endless:
    """Streams without end on `/`; bounded answers, larger than any buffer on `/bounded`, and small on `/short`."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = {"/bounded": 200, "/short": SHORT}.get(scope["path"], 1 << 40)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await while_connected(receive, self._stream(send, pieces))
        except ClientDisconnectedError:
            self.gone.set()

    async def _stream(self, send: Send, pieces: int) -> None:
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def serving(timeout_s: float = 60.0, send_buffer: int = 16_384) -> AsyncIterator[Serving]:
    """A connection's kernel keeps `send_buffer` bytes, or twice as many, that their reader has not taken."""
    app = Endless()
    arrivals = Arrivals(lambda _: False, in_flight=Count())
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(BoundedHttpProtocol, arrivals)),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=timeout_s,  # type: ignore[arg-type]  # as the service gives it
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield Serving(app, server, listener.getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        await server.shutdown(sockets=[listener])


async def ask(port: int, path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4_096)
    writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: app\r\n\r\n")
    return reader, writer


async def test_a_client_that_reads_nothing_of_a_stream_is_let_go() -> None:
    async with serving(TIMEOUT_S) as service:
        _, writer = await ask(service.port, b"/")
        async with asyncio.timeout(PATIENCE_S):
            await service.app.gone.wait()
        writer.transport.abort()


async def test_a_client_that_reads_slowly_but_does_is_waited_for() -> None:
    async with serving(TIMEOUT_S) as service:
        reader, writer = await ask(service.port, b"/")
        loop = asyncio.get_running_loop()
        began, read = loop.time(), 0
        while loop.time() - began < 5 * TIMEOUT_S or read < 40 * len(PIECE):
            piece = await asyncio.wait_for(reader.read(len(PIECE)), PATIENCE_S)
            assert piece, "the connection was closed"
            read += len(piece)
            await asyncio.sleep(0.001)
        assert not service.app.gone.is_set()
        writer.transport.abort()


@pytest.mark.parametrize("path", [b"/", b"/short"])
async def test_one_that_reads_so_slowly_that_only_the_kernel_has_room_for_it_is_waited_for(path: bytes) -> None:
    """In the midst of an answer, and of one that is written to its end; the time is over at each look, by hand."""
    async with serving(send_buffer=400_000) as service:
        with connected(service.port) as client:
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: app\r\n\r\n")
            await until(lambda: is_stuck(service) if path == b"/" else is_written(service), "no more is sent")
            connection = service.connection
            in_buffer = connection.transport.get_write_buffer_size()
            for _ in range(3):
                connection.timeout_keep_alive_handler()
                before = unsent_bytes(connection.transport)
                assert before > in_buffer
                await until(partial(has_taken, client, service, before), "something is taken")
                assert connection.transport.get_write_buffer_size() == in_buffer
            connection.timeout_keep_alive_handler()
            assert not connection.transport.is_closing()
            connection.timeout_keep_alive_handler()
            await until(lambda: not service.server.server_state.connections, "the connection is closed")


async def test_one_that_has_taken_its_answer_slowly_has_the_time_again_for_its_next_request() -> None:
    async with serving(send_buffer=400_000) as service:
        with connected(service.port) as client:
            client.sendall(b"GET /short HTTP/1.1\r\nHost: app\r\n\r\n")
            await until(lambda: is_written(service), "the answer is written")
            connection = service.connection
            connection.timeout_keep_alive_handler()
            await until(lambda: has_all(client, service), "all is taken")
            connection.timeout_keep_alive_handler()
            assert not connection.transport.is_closing()
            connection.timeout_keep_alive_handler()
            assert connection.transport.is_closing()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """It takes next to nothing that it doesn't read."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        yield client


async def is_stuck(service: Serving) -> bool:
    before = service.app.sent
    await asyncio.sleep(0.05)
    return 0 < before == service.app.sent


async def is_written(service: Serving) -> bool:
    return service.app.sent == SHORT and service.connection.transport.get_write_buffer_size() == 0


def has_taken(client: socket.socket, service: Serving, before: int) -> bool:
    """Reads a little, and whether the service's end knows."""
    with suppress(BlockingIOError):
        client.recv(1_024)
    return unsent_bytes(service.connection.transport) < before


def has_all(client: socket.socket, service: Serving) -> bool:
    with suppress(BlockingIOError):
        client.recv(65_536)
    return unsent_bytes(service.connection.transport) == 0


async def test_after_an_answer_that_had_to_wait_the_connection_takes_the_next_request() -> None:
    async with serving(5.0) as service:
        reader, writer = await ask(service.port, b"/bounded")
        for _ in range(2):
            read = b""
            while not read.endswith(b"\r\n0\r\n\r\n"):
                piece = await asyncio.wait_for(reader.read(len(PIECE)), PATIENCE_S)
                assert piece, "the connection was closed"
                read = read[-16:] + piece
            writer.write(b"GET /bounded HTTP/1.1\r\nHost: app\r\n\r\n")
        writer.transport.abort()
