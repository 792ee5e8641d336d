"""A TCP relay in front of a server, for the failures that no server makes on purpose."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Relay:
    """Forwards `127.0.0.1:port` to the upstream port; `async with` listens."""

    def __init__(self, upstream_port: int) -> None:
        self.port = free_port()
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut: set[asyncio.StreamWriter] = set()
        self._held: set[asyncio.StreamWriter] = set()
        self._let_go = asyncio.Event()
        self._answering = asyncio.Event()
        self._answering.set()
        self._stalled = asyncio.Semaphore(0)
        self._ended = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._flows):
            task.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def cut_silently(self) -> None:
        """What is connected now stays connected and never hears anything again; what comes later is forwarded."""
        self._cut |= self._writers

    def hold(self) -> None:
        """What is sent from now on by either side of what is connected now waits until `let_go`."""
        self._held |= self._writers

    def let_go(self) -> None:
        """Once and for all."""
        self._let_go.set()

    def stall(self) -> None:
        """New connections are accepted and not answered, until `answer`."""
        self._answering.clear()

    async def until_stalled(self, connections: int) -> None:
        """Until so many have come since the stall."""
        for _ in range(connections):
            await self._stalled.acquire()

    async def until_ended(self) -> None:
        """Until one more connection has come and ended."""
        await self._ended.acquire()

    def answer(self) -> None:
        self._answering.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("connections are accepted in tasks")
        self._flows.add(task)
        self._writers.add(writer)
        try:
            if not self._answering.is_set():
                self._stalled.release()
                await self._answering.wait()
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            self._writers.add(upstream_writer)
            pair = (writer, upstream_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, upstream_writer, pair))
                both.create_task(self._forward(upstream_reader, writer, pair))
        except asyncio.CancelledError:
            # Only __aexit__ cancels; asyncio's streams would log it.
            pass
        finally:
            self._flows.discard(task)
            self._ended.release()

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        pair: Iterable[asyncio.StreamWriter],
    ) -> None:
        try:
            while data := await source.read(_CHUNK_BYTES):
                if sink in self._held:
                    await self._let_go.wait()
                if not self._cut.intersection(pair):
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            pass
        if not self._cut.intersection(pair):
            sink.close()
