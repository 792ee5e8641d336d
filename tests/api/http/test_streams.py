"""Answers without end over the service's own connections: who reads is waited for, who does not is let go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.api.http.arrivals import Arrivals
from app.api.http.disconnect import ClientDisconnectedError, while_connected
from app.api.http.protocol import BoundedHttpProtocol
from app.telemetry.plain import Count

TIMEOUT_S = 0.3
PATIENCE_S = 20.0
PIECE = b"x" * 65_536


class Endless:
    """Streams without end on `/`, and a bounded answer, larger than any buffer, on `/bounded`."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces = 200 if scope["path"] == "/bounded" else 1 << 40
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


@pytest.fixture
async def endless() -> AsyncIterator[tuple[Endless, int]]:
    app = Endless()
    arrivals = Arrivals(lambda _: False, in_flight=Count())
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(BoundedHttpProtocol, arrivals)),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=TIMEOUT_S,  # type: ignore[arg-type]  # as the service gives it
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    yield app, listener.getsockname()[1]
    server.should_exit = server.force_exit = True
    await server.shutdown(sockets=[listener])


async def ask(port: int, path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4_096)
    writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: app\r\n\r\n")
    return reader, writer


async def test_a_client_that_reads_nothing_of_a_stream_is_let_go(endless: tuple[Endless, int]) -> None:
    app, port = endless
    _, writer = await ask(port, b"/")
    async with asyncio.timeout(PATIENCE_S):
        await app.gone.wait()
    writer.transport.abort()


async def test_a_client_that_reads_slowly_but_does_is_waited_for(endless: tuple[Endless, int]) -> None:
    app, port = endless
    reader, writer = await ask(port, b"/")
    loop = asyncio.get_running_loop()
    began, read = loop.time(), 0
    while loop.time() - began < 5 * TIMEOUT_S or read < 40 * len(PIECE):
        piece = await asyncio.wait_for(reader.read(len(PIECE)), PATIENCE_S)
        assert piece, "the connection was closed"
        read += len(piece)
        await asyncio.sleep(0.001)
    assert not app.gone.is_set()
    writer.transport.abort()


async def test_after_an_answer_that_had_to_wait_the_connection_takes_the_next_request(
    endless: tuple[Endless, int],
) -> None:
    _, port = endless
    reader, writer = await ask(port, b"/bounded")
    for _ in range(2):
        read = b""
        while not read.endswith(b"\r\n0\r\n\r\n"):
            piece = await asyncio.wait_for(reader.read(len(PIECE)), PATIENCE_S)
            assert piece, "the connection was closed"
            read = read[-16:] + piece
        writer.write(b"GET /bounded HTTP/1.1\r\nHost: app\r\n\r\n")
    writer.transport.abort()
