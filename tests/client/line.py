"""A line between a client and a port of this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Line:
    """What the server says is kept back until `open` is set. `sent` counts the bytes from the client."""

    def __init__(self) -> None:
        self.port = 0
        self.sent = 0
        self.connections = 0
        self.open = asyncio.Event()
        self.open.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._silent: set[asyncio.StreamWriter] = set()

    def silence(self) -> None:
        """The connections that there are now stay, and nothing more comes over them."""
        self._silent.update(self._writers)

    def cut(self) -> None:
        """The connections that there are now end at once."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @asynccontextmanager
    async def to(self, server_port: int) -> AsyncIterator[None]:
        """It begins at `port` while this lasts."""
        flows: set[asyncio.Task[None]] = set()

        async def flow(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536):
                    if answers:
                        await self.open.wait()
                    else:
                        self.sent += len(data)
                    if sink not in self._silent:
                        sink.write(data)
            sink.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", server_port)
            self.connections += 1
            self._writers += [writer, downstream]
            flows.add(asyncio.create_task(flow(reader, downstream, answers=False)))
            flows.add(asyncio.create_task(flow(upstream, writer, answers=True)))

        listening = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            self.open.set()
            listening.close()
            self.cut()
            await asyncio.gather(*flows, return_exceptions=True)
