"""A backend and a client that send exactly the bytes they are told to: what no real peer does on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from app.loom.proxy import framing
from app.loom.proxy.framing import PREFACE, Frame, FrameParser
from tests.loom import wire
from tests.loom.account import WAIT_S

ACK = wire.frame(framing.SETTINGS, framing.ACK, 0)


@dataclass
class Heard:
    """A stream as one end got it, up to its end."""

    stream: int
    blocks: list[list[tuple[str, str]]] = field(default_factory=list)
    """The header blocks: first headers, then trailers."""
    body: bytes = b""
    frames: list[int] = field(default_factory=list)
    """The kinds of its frames."""
    reset_code: int | None = None


class Peer:
    """One end of an HTTP/2 connection, by hand. Acknowledges SETTINGS; all else is left to the script."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, of_client: bool) -> None:
        self.reader, self.writer = reader, writer
        self.encoder, self._decoder = Encoder(), Decoder(max_header_list_size=1 << 20)
        self.received = bytearray()
        self._parser = FrameParser(max_payload_bytes=1 << 20, skip=0 if of_client else len(PREFACE))
        self._frames: list[Frame] = []

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def read(self) -> bool:
        """Some more bytes; false at the end."""
        async with asyncio.timeout(WAIT_S):
            data = await self.reader.read(65_536)
        self.received += data
        for found in self._parser.feed(data):
            if found.kind == framing.SETTINGS and not found.flags & framing.ACK:
                self.send(ACK)
            if self._frames and not self._frames[-1].is_last:
                before = self._frames.pop()
                found = found._replace(payload=(before.payload or b"") + (found.payload or b""))
            self._frames.append(found)
        return bool(data)

    async def next(self, kind: int) -> Frame:
        """The next frame of this kind; others before it are dropped."""
        while (found := await self._any()).kind != kind:
            pass
        return found

    async def headers(self) -> tuple[int, list[tuple[str, str]]]:
        """The next header block, in one frame: its stream and what it says."""
        found = await self.next(framing.HEADERS)
        return found.stream, self._decoded(found.payload or b"")

    async def stream(self) -> Heard:
        """The stream whose frame comes next, up to its end; what comes meanwhile of others is dropped."""
        heard: Heard | None = None
        block, is_end = b"", False
        while True:
            found = await self._any()
            if not found.stream or found.kind == framing.GOAWAY or (heard and found.stream != heard.stream):
                continue
            heard = heard or Heard(found.stream)
            heard.frames.append(found.kind)
            if found.kind == framing.RST_STREAM:
                heard.reset_code = int.from_bytes(found.payload or b"")
                return heard
            if found.kind == framing.DATA:
                heard.body += found.payload or b""
            else:
                block += found.payload or b""
            is_end = is_end or (found.kind != framing.CONTINUATION and bool(found.flags & framing.END_STREAM))
            if found.kind != framing.DATA and found.flags & framing.END_HEADERS:
                heard.blocks.append(self._decoded(block))
                block = b""
            if is_end and not block:
                return heard

    async def end(self) -> None:
        """Until the other side has ended."""
        while await self.read():
            pass

    async def gone(self) -> None:
        """Until the other side has ended, or has reset the connection."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.end()

    def block(self, stream: int, fields: list[tuple[str, str]], *, end: bool = False, in_frames: int = 1) -> bytes:
        return wire.headers(self.encoder, stream, fields, end=end, in_frames=in_frames)

    async def _any(self) -> Frame:
        """The next frame, whole."""
        while not (self._frames and self._frames[0].is_last):
            if not await self.read():
                raise ConnectionError("the connection ended")
        return self._frames.pop(0)

    def _decoded(self, block: bytes) -> list[tuple[str, str]]:
        return [(str(name), str(value)) for name, value in self._decoder.decode(block)]


async def answer_all(peer: Peer) -> None:
    """Every call, with an echo of its first DATA frame."""
    while True:
        stream, _ = await peer.headers()
        asked = await peer.next(framing.DATA)
        peer.send(peer.block(stream, wire.RESPONSE_HEADERS) + wire.data(stream, asked.payload or b""))
        peer.send(peer.block(stream, wire.OK_TRAILERS, end=True))


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(script: Script, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """A backend that greets each connection with SETTINGS and then follows the script; its port."""
    tasks: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            peer = Peer(reader, writer, of_client=False)
            peer.send(wire.settings())
            await script(peer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except (AssertionError, TimeoutError) as error:
            failures.append(error)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(accept, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failures


@asynccontextmanager
async def client(
    port: int, greeting: bytes = PREFACE + wire.settings(), tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """A client's connection that begins with `greeting`."""
    more = {} if tls is None else {"ssl": tls, "server_hostname": "localhost"}
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **more)  # type: ignore[arg-type]
    try:
        peer = Peer(reader, writer, of_client=True)
        peer.send(greeting)
        yield peer
    finally:
        writer.close()
