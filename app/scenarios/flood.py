"""A client in a process of its own that asks for very many keys in one instant, while others time something else.

`python -m app.scenarios.flood` is that process: it is told what to ask for in one line of JSON, says `ready` when its
connections are open, asks when the next line comes, says `answered` when all are, tells the answers at the next line,
and keeps its connections until it is ended. It takes as little of the processor as it can, which it shares with the
servers: plain sockets, and requests that are ready before.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import httptools

from app.loadtest.http import authority
from app.loadtest.runner import allow_files
from app.scenarios.errors import ScenarioError

READY_TIMEOUT_S = 30.0
LINE_LIMIT = 64 * 1024 * 1024
_READ_BYTES = 65_536
_ROOT = Path(__file__).resolve().parents[2]


class Asked(NamedTuple):
    """What became of one request: times in seconds on the monotonic clock, `status` 0 where no response came."""

    sent: float
    end: float
    status: int
    error: str
    """Empty where the key's template came."""
    is_among_all: bool
    """Whether nothing of an answer had come when the last request had been sent."""

    @property
    def seconds(self) -> float:
        return self.end - self.sent


class Flood:
    """The client, ready to ask."""

    def __init__(self, process: asyncio.subprocess.Process, timeout_s: float) -> None:
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        self._orders, self._words = process.stdin, process.stdout
        self._timeout_s = timeout_s

    async def open(self, addresses: Sequence[tuple[str, int]], keys: range) -> None:
        """Connect to the servers in turn, once for each key."""
        self._order(
            json.dumps({"addresses": addresses, "first": keys.start, "count": len(keys), "timeout_s": self._timeout_s})
        )
        await self._hear(READY_TIMEOUT_S)

    async def ask(self) -> None:
        """Ask for all keys, each once, and wait until all are answered, or their time is over."""
        self._order("ask")
        await self._hear(2 * self._timeout_s)

    async def answers(self) -> list[Asked]:
        """What came. To read it takes a while, in which nothing should be timed here."""
        self._order("tell")
        return [Asked(*each) for each in json.loads(await self._hear(READY_TIMEOUT_S))]

    def close(self) -> None:
        self._orders.close()

    def _order(self, text: str) -> None:
        self._orders.write(text.encode() + b"\n")

    async def _hear(self, within_s: float) -> bytes:
        try:
            line = await asyncio.wait_for(self._words.readline(), within_s)
        except TimeoutError:
            line = b""
        if not line:
            raise ScenarioError("the client that floods the replicas did not do its work")
        return line


@contextlib.asynccontextmanager
async def flood(addresses: Sequence[tuple[str, int]], keys: range, timeout_s: float) -> AsyncIterator[Flood]:
    """A client for all the keys, the servers in turn, with its connections open.

    Raises `ScenarioError` where it does not get ready, and so do its methods where it does not do its work in time.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.scenarios.flood"),
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
        start_new_session=True,
    )
    client = Flood(process, timeout_s)
    try:
        await client.open(addresses, keys)
        yield client
    finally:
        client.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Request:
    """One connection, the request that is sent on it, and the response."""

    def __init__(self, address: tuple[str, int], key: int, timeout_s: float) -> None:
        self._bytes = f"GET /template-details?id={key} HTTP/1.1\r\nHost: {authority(*address)}\r\n\r\n".encode()
        self._parser = httptools.HttpResponseParser(self)
        self._sent = 0.0
        self.answer: Asked | None = None
        self.is_among_all = False
        self.socket = socket.create_connection(address, timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send(self) -> None:
        self._sent = time.monotonic()
        try:
            self.socket.sendall(self._bytes)  # into a buffer that holds nothing yet
        except OSError as error:
            self.fail(error.strerror or "cannot send")

    def receive(self) -> None:
        """What there is to read."""
        try:
            data = self.socket.recv(_READ_BYTES)
            if data:
                self._parser.feed_data(data)
            else:
                self.fail("connection closed")
        except httptools.HttpParserError:
            self.fail("malformed response")
        except OSError as error:
            self.fail(error.strerror or "cannot receive")

    def fail(self, error: str) -> None:
        self._end(0, error)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._end(status, "" if status == 200 else f"status {status}")

    def _end(self, status: int, error: str) -> None:
        self.answer = Asked(self._sent, time.monotonic(), status, error, self.is_among_all)


def _ask(requests: Sequence[_Request], timeout_s: float) -> list[Asked]:
    with selectors.DefaultSelector() as selector:
        for request in requests:
            selector.register(request.socket, selectors.EVENT_READ, request)
        for request in requests:
            request.send()
        early = {key.data for key, _ in selector.select(0)}
        for request in requests:
            request.is_among_all = request not in early
        ends_at = time.monotonic() + timeout_s
        for request in _readable(selector, ends_at):
            request.receive()
            if request.answer is not None:
                selector.unregister(request.socket)
    for request in requests:
        if request.answer is None:
            request.fail("timeout")
    return [request.answer for request in requests if request.answer is not None]


def _readable(selector: selectors.BaseSelector, ends_at: float) -> Iterator[_Request]:
    """Those that have something to read, until none is registered any more or the time is over."""
    while selector.get_map() and (left_s := ends_at - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            yield key.data


def main() -> None:
    """Thousands of connections that are closed in one instant are another load, for which nobody asked: they stay."""
    orders = sys.stdin
    told = json.loads(orders.readline())
    allow_files(told["count"] + 1_024, "--cold-keys")
    addresses, first, timeout_s = told["addresses"], told["first"], told["timeout_s"]
    try:
        requests = [
            _Request(tuple(addresses[number % len(addresses)]), first + number, timeout_s)
            for number in range(told["count"])
        ]
    except OSError as error:
        sys.exit(f"flood: cannot connect: {error.strerror or error}")
    gc.collect()
    gc.freeze()
    print("ready", flush=True)  # noqa: T201 - standard output is its parent's
    if orders.readline():
        answers = _ask(requests, timeout_s)
        print("answered", flush=True)  # noqa: T201
        if orders.readline():
            print(json.dumps(answers), flush=True)  # noqa: T201
            orders.readline()


if __name__ == "__main__":
    main()
