"""`python -m tests.bench.frame_echo`: a gRPC server that echoes unary calls and costs less than what is before it.

HTTP/2 frames, and nothing read of them but which calls are whole: as a server in Go or C++ does, it takes up all calls
that have come and answers them together, where grpc.aio takes a quarter of a millisecond for each. It answers any
method, and knows no windows of its peer's, resets or padding: who measures by it needs none.

Prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from typing import Final, cast

import uvloop

from tests.bench.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_BYTES,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    frame,
    frames,
    header_block,
)

_HEADERS: Final = header_block(
    (":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", "identity, gzip")
)
_TRAILERS: Final = header_block(("grpc-status", "0"), ("grpc-message", ""))


class _Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._buffer = b""
        self._is_greeted = False
        self._bodies: dict[int, bytes] = {}
        self._unread = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        window = struct.pack(">HL", INITIAL_WINDOW_SIZE, WINDOW)
        self._transport.write(frame(SETTINGS, 0, 0, window))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_greeted:
            if len(self._buffer) < len(PREFACE):
                return
            self._is_greeted = True
            self._buffer = self._buffer[len(PREFACE) :]
        received, self._buffer = frames(self._buffer)
        replies: list[bytes] = []
        for kind, flags, stream, payload in received:
            if kind == DATA:
                self._unread += len(payload)
                body = self._bodies.pop(stream, b"") + payload
                if flags & END_STREAM:
                    replies.append(_answer(stream, body))
                else:
                    self._bodies[stream] = body
            elif kind in (SETTINGS, PING) and not flags & ACK:
                replies.append(frame(kind, ACK, 0, payload if kind == PING else b""))
        if self._unread:
            replies.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self._unread)))
            self._unread = 0
        if replies:
            self._transport.write(b"".join(replies))


def _answer(stream: int, body: bytes) -> bytes:
    pieces = [body[begin : begin + MAX_FRAME_BYTES] for begin in range(0, len(body), MAX_FRAME_BYTES)]
    return b"".join(
        [
            frame(HEADERS, END_HEADERS, stream, _HEADERS),
            *(frame(DATA, 0, stream, piece) for piece in pieces),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, _TRAILERS),
        ]
    )


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve())
