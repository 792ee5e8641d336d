"""Unary gRPC calls from a client that costs less than what it measures: HTTP/2 frames, and nothing read of them but
whether a call was answered with a message.

grpc.aio's own client takes several times what the server under measurement does.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import cast

import uvloop
from hpack import HPACKError
from hpack.hpack import Decoder

from tests.bench.figure import BenchError
from tests.bench.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    frame,
    frames,
    greeting,
    grpc_call,
)
from tests.bench.load import Load

CONNECTIONS = 4
CALLS_A_CONNECTION = 16
"""At a time, so that there are 64 callers in all, where a benchmark asks for no other number of connections."""


def load(
    target: str,
    method: str,
    message: bytes,
    *,
    seconds: float | None = None,
    requests: int | None = None,
    connections: int = CONNECTIONS,
    deadline_s: float = 300,
) -> Load:
    """Calls of `method`, such as `/package.Service/Method`, until either limit is reached and all are answered.

    Raises `BenchError` where a call ends without a message, a connection ends, or all takes longer than `deadline_s`.
    """
    work = run_load(
        target, method, message, seconds=seconds, requests=requests, connections=connections, deadline_s=deadline_s
    )
    return uvloop.run(work)


async def run_load(
    target: str,
    method: str,
    message: bytes,
    *,
    seconds: float | None = None,
    requests: int | None = None,
    connections: int = CONNECTIONS,
    deadline_s: float = 300,
) -> Load:
    """As `load`, on the running event loop."""
    host, _, port = target.rpartition(":")
    loop = asyncio.get_running_loop()
    supply = _Supply(requests)
    clients = [_Client(target, method, message, supply) for _ in range(connections)]
    try:
        async with asyncio.timeout(deadline_s):
            for client in clients:
                await loop.create_connection(lambda client=client: client, host, int(port))  # type: ignore[misc]
            begun = time.perf_counter()
            if seconds is not None:
                loop.call_later(seconds, supply.stop)
            for client in clients:
                client.start()
            await asyncio.gather(*(client.ended for client in clients))
            return Load(sum(client.answered for client in clients), time.perf_counter() - begun)
    except TimeoutError:
        raise BenchError(f"the load on {target} did not end within {deadline_s:g} s") from None
    except OSError as error:
        raise BenchError(f"cannot load {target}: {error}") from error
    finally:
        for client in clients:
            client.close()


class _Supply:
    """The calls still to be made."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    def stop(self) -> None:
        self._left = 0

    def take(self, most: int) -> int:
        """How many of `most` may be made now."""
        if self._left is None:
            return most
        taken = min(most, self._left)
        self._left -= taken
        return taken


class _Client(asyncio.Protocol):
    """One connection, which begins a call as soon as another has ended."""

    def __init__(self, target: str, method: str, message: bytes, supply: _Supply) -> None:
        self._supply = supply
        self._headers, self._body = grpc_call(target, method, message)
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._stream = -1
        self._under_way: dict[int, bool] = {}
        self._has_begun = False
        self._unread = 0
        self.answered = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self._has_begun = True
        self._write(b"".join(self._call() for _ in range(self._supply.take(CALLS_A_CONNECTION))))
        self._end_if_done()

    def close(self) -> None:
        self.ended.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._write(greeting())

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the server closed a connection: {error}" if error else "the server closed a connection")

    def data_received(self, data: bytes) -> None:
        received, self._buffer = frames(self._buffer + data if self._buffer else data)
        replies = []
        for kind, flags, stream, payload in received:
            if kind == DATA:
                self._under_way[stream] = True
                self._unread += len(payload)
            elif kind == HEADERS:
                if flags & END_STREAM:
                    if not self._under_way.pop(stream):
                        self._fail(f"a call failed: {_told(payload)}")
                        return
                    self.answered += 1
                    if self._supply.take(1):
                        replies.append(self._call())
            elif kind == SETTINGS and not flags & ACK:
                replies.append(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                replies.append(frame(PING, ACK, 0, payload))
            elif kind in (RST_STREAM, GOAWAY):
                self._fail("the server ended a call or the connection")
                return
        if self._unread > WINDOW // 2:
            replies.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", self._unread)))
            self._unread = 0
        if replies:
            self._write(b"".join(replies))
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._has_begun and not self._under_way and not self.ended.done():
            self.ended.set_result(None)

    def _call(self) -> bytes:
        self._stream += 2
        self._under_way[self._stream] = False
        return frame(HEADERS, END_HEADERS, self._stream, self._headers) + frame(
            DATA, END_STREAM, self._stream, self._body
        )

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _fail(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(BenchError(reason))


def _told(block: bytes) -> str:
    try:
        headers = [f"{name!s}: {value!s}" for name, value in Decoder().decode(block)]
    except HPACKError:
        return "it was not answered with a message"
    return ", ".join(header for header in headers if header.startswith("grpc-"))
