"""A client that speaks HTTP/2 by itself, so that it can send what no gRPC library would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

Header = tuple[str, str]
GOAWAY = 7
"""The type of the frame: RFC 9113, 6.8."""


def message(payload: bytes, flag: int = 0) -> bytes:
    """With gRPC's prefix: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md."""
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


@dataclass
class Answer:
    """What came on one stream so far. `reset` is the code of its RST_STREAM."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> int | None:
        """The gRPC status, where it was told."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None


class RawClient:
    """One connection. Received data is credited at once, unless `reads` is false."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reads: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._reads = reads
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._answers: dict[int, Answer] = {}
        self._progress = asyncio.Condition()
        self.settled = asyncio.Event()
        self.goaway: int | None = None
        """The error code of the last GOAWAY."""
        self.closed = asyncio.Event()
        self._h2.initiate_connection()
        self._flush()
        self._receiving = asyncio.ensure_future(self._receive())

    def open(self, path: str, metadata: Sequence[Header] = (), *, end: bool = False) -> tuple[int, Answer]:
        """A new stream's number and what will come on it."""
        number = self._h2.get_next_available_stream_id()
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *metadata,
        ]
        self._h2.send_headers(number, head, end_stream=end)
        self._flush()
        answer = self._answers[number] = Answer()
        return number, answer

    async def send(self, number: int, data: bytes, *, end: bool = True) -> None:
        """Sends as much as the windows let it, waiting for them; gives up where the stream has ended."""
        answer = self._answers[number]
        while data and not answer.ended.is_set():
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            part, data = data[:room], data[room:]
            if part:
                self._h2.send_data(number, part, end_stream=end and not data)
                self._flush()
            elif not self.closed.is_set():
                async with self._progress:
                    await asyncio.wait_for(self._progress.wait(), 10)
            else:
                return

    async def call(self, path: str, data: bytes, metadata: Sequence[Header] = ()) -> Answer:
        """A call with these bytes for its body, to its end."""
        number, answer = self.open(path, metadata)
        await self.send(number, data)
        await asyncio.wait_for(answer.ended.wait(), 10)
        return answer

    @property
    def most_streams(self) -> int:
        """How many calls at a time the server allows."""
        return self._h2.remote_settings.max_concurrent_streams

    def reset(self, number: int, code: int = 8) -> None:
        """RST_STREAM; code 8 is CANCEL."""
        self._h2.reset_stream(number, code)
        self._flush()

    def write(self, octets: bytes) -> None:
        """Past HTTP/2."""
        self._writer.write(octets)

    def hang(self) -> None:
        """Answers nothing any more, probes neither; the connection stays."""
        self._receiving.cancel()

    async def aclose(self) -> None:
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def _receive(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                octets = head + await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == GOAWAY:  # h2 takes it for the connection's end, which it need not be
                    self.goaway = int.from_bytes(octets[13:17], "big")
                    continue
                for event in self._h2.receive_data(octets):
                    self._take(event)
                self._flush()
                async with self._progress:
                    self._progress.notify_all()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        finally:
            self.closed.set()
            for answer in self._answers.values():
                answer.ended.set()

    def _take(self, event: object) -> None:
        match event:
            case ResponseReceived() | TrailersReceived():
                self._answers[event.stream_id].headers.update(
                    (str(key), str(value)) for key, value in event.headers or ()
                )
            case DataReceived():
                self._answers[event.stream_id].data += event.data
                if self._reads:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamReset():
                answer = self._answers[event.stream_id]
                answer.reset = int(event.error_code)
                answer.ended.set()
            case StreamEnded():
                self._answers[event.stream_id].ended.set()
            case SettingsAcknowledged():
                self.settled.set()


@asynccontextmanager
async def raw_client(port: int, *, reads: bool = True) -> AsyncIterator[RawClient]:
    """A connection to a server on this machine, with the server's settings known."""
    client = RawClient(*await asyncio.open_connection("127.0.0.1", port), reads=reads)
    try:
        await asyncio.wait_for(client.settled.wait(), 10)
        yield client
    finally:
        await client.aclose()
