"""A relay in front of PostgreSQL that knows where the server's messages begin and end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

Pass = Callable[[bytes], bool]
"""Whether a message of the server's (its type's byte, its length in four, its body) goes on to the client."""


class MessageRelay:
    """Forwards `127.0.0.1:port` to the upstream port, and of what the server says only what `passes` lets through.

    For clients that ask for no encryption (`sslmode=disable`): the answer to that question is no message.
    Protocol: https://www.postgresql.org/docs/current/protocol-message-formats.html
    """

    def __init__(self, upstream_port: int) -> None:
        self.passes: Pass = lambda _message: True
        self._going = asyncio.Event()
        self._going.set()
        self.port = 0
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.release()
        self.cut()
        await asyncio.wait_for(asyncio.gather(*self._flows), 5)

    def hold(self) -> None:
        """Keeps back what the server says, until `release`."""
        self._going.clear()

    def release(self) -> None:
        self._going.set()

    def cut(self) -> None:
        """Ends what is connected now, on both sides; what the relay still held is gone."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("connections are accepted in tasks")
        self._flows.add(task)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            self._writers |= {writer, upstream_writer}
            await asyncio.gather(self._ask(reader, upstream_writer), self._answer(upstream_reader, writer))
            self._writers -= {writer, upstream_writer}
        finally:
            self._flows.discard(task)

    async def _ask(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        sink.close()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await source.readexactly(5)
                message = head + await source.readexactly(int.from_bytes(head[1:], "big") - 4)
                await self._going.wait()
                if self.passes(message):
                    sink.write(message)
                    await sink.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        sink.close()
