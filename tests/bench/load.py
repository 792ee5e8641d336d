"""Load on a server, from a client that costs less than what it measures.

The load test's own driver parses, times and logs every response, and would be the slower side against a bare server.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import uvloop

from tests.bench.figure import BenchError

CONNECTIONS = 64

_GOOD = b"HTTP/1.1 200 "
_LENGTH = b"\r\ncontent-length: "


class Load(NamedTuple):
    """How many requests were answered, in how long."""

    requests: int
    seconds: float


def load(
    url: str,
    targets: Sequence[str],
    *,
    seconds: float | None = None,
    requests: int | None = None,
    deadline_s: float = 300,
) -> Load:
    """GETs of `targets` in turn over keep-alive connections, one at a time on each, until either limit is reached.

    Raises `BenchError` where a response is not 200, a connection ends, or it all takes longer than `deadline_s`.
    """
    return uvloop.run(run_load(url, targets, seconds=seconds, requests=requests, deadline_s=deadline_s))


async def run_load(
    url: str,
    targets: Sequence[str],
    *,
    seconds: float | None = None,
    requests: int | None = None,
    deadline_s: float = 300,
) -> Load:
    """As `load`, on the running event loop."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    wire = [
        f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\n\r\n".encode("ascii") for target in targets
    ]
    supply = _Supply(itertools.cycle(wire), requests)
    loop = asyncio.get_running_loop()
    clients = [_Client(supply) for _ in range(CONNECTIONS)]
    try:
        async with asyncio.timeout(deadline_s):
            for client in clients:
                await loop.create_connection(lambda client=client: client, host, port)  # type: ignore[misc]
            begun = time.perf_counter()
            if seconds is not None:
                loop.call_later(seconds, supply.stop)
            for client in clients:
                client.start()
            await asyncio.gather(*(client.ended for client in clients))
            return Load(supply.answered, time.perf_counter() - begun)
    except TimeoutError:
        raise BenchError(f"the load on {url} did not end within {deadline_s:g} s") from None
    except OSError as error:
        raise BenchError(f"cannot load {url}: {error}") from error
    finally:
        for client in clients:
            client.close()


class _Supply:
    """The requests still to be sent, and how many were answered."""

    def __init__(self, requests: Iterator[bytes], limit: int | None) -> None:
        self._requests = requests
        self._left = limit
        self._stopped = False
        self.answered = 0

    def stop(self) -> None:
        self._stopped = True

    def take(self) -> bytes | None:
        if self._stopped or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        return next(self._requests)


class _Client(asyncio.Protocol):
    """One connection, which sends the next request as soon as the last response is whole."""

    def __init__(self, supply: _Supply) -> None:
        self._supply = supply
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self._next()

    def close(self) -> None:
        self.ended.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the server closed a connection: {error}" if error else "the server closed a connection")

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0:
            self._buffer = buffer
            return
        length_at = buffer.find(_LENGTH, 0, head_end)
        if length_at < 0 or not buffer.startswith(_GOOD):
            self._fail(f"not a response to measure by: {buffer[:60]!r}")
            return
        length = int(buffer[length_at + len(_LENGTH) : buffer.find(b"\r\n", length_at + 2)])
        missing = head_end + 4 + length - len(buffer)
        if missing > 0:
            self._buffer = buffer
            return
        self._buffer = b""
        if missing < 0:
            self._fail("the server sent more than it was asked for")
            return
        self._supply.answered += 1
        self._next()

    def _next(self) -> None:
        request = self._supply.take()
        if request is None:
            if not self.ended.done():
                self.ended.set_result(None)
        elif self._transport is not None:
            self._transport.write(request)

    def _fail(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(BenchError(reason))
