"""A TCP forwarder that remembers every byte of each connection, to tell whether the proxy behind it changed one."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Tapped:
    """One connection's bytes."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.received = bytearray()


class Wiretap:
    """Forwards `127.0.0.1:port` to another port; `async with` listens."""

    def __init__(self, port: int = 0) -> None:
        self.upstream_port = port
        self.port = 0
        self.connections: list[Tapped] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        tapped = Tapped()
        self.connections.append(tapped)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_forward(reader, upstream_writer, tapped.sent))
                    both.create_task(_forward(upstream_reader, writer, tapped.received))
            finally:
                upstream_writer.close()
        except (asyncio.CancelledError, OSError):
            pass  # asyncio's streams would log it
        finally:
            writer.close()
            self._tasks.discard(task)


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while data := await source.read(65_536):
            kept += data
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    if not sink.is_closing() and sink.can_write_eof():
        with contextlib.suppress(OSError):
            sink.write_eof()
