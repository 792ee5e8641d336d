"""HTTP/1.1 keep-alive connections for a load generator that shares its processors with the server under test."""

from __future__ import annotations

import asyncio
import re
import time
from typing import NamedTuple, cast

import httptools

from app.loadtest.errors import RequestError
from app.loadtest.reader import SOURCES, Reply

_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*(\d+)\s*[,}]')


class Response(NamedTuple):
    """`source` is the `X-Cache` header, empty where there was none; `end` is when the last byte had been read."""

    status: int
    source: str
    body: bytes
    end: float


class HttpReader:
    """Reads templates over one connection. Implements `Reader`."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._connection = Connection(host, port, timeout_s)

    async def open(self) -> None:
        await self._connection.open()

    async def read(self, key: int) -> Reply:
        response = await self._connection.get(b"/template-details?id=%d" % key)
        return Reply(response.end, response.status, response.source, _fault(response, key))

    async def close(self) -> None:
        self._connection.close()


class _ClosedError(RequestError):
    """The server closed the connection before the first byte of a response: nothing was lost by asking again."""


class Connection:
    """One connection, one request at a time; it reconnects by itself when the server closed it.

    `timeout_s` bounds each request whole, connecting and the retry included. `headers` are whole lines, for every
    request.
    """

    def __init__(self, host: str, port: int, timeout_s: float, headers: str = "") -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None
        self._head = f" HTTP/1.1\r\nHost: {authority(host, port)}\r\nAccept: */*\r\n{headers}".encode("ascii")
        self._tail = self._head + b"\r\n"

    async def open(self) -> None:
        """Connects, where not connected. Raises `RequestError`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connect()
        except TimeoutError:
            raise RequestError("timeout") from None

    async def get(self, path: bytes) -> Response:
        """The response, whatever its status. Raises `RequestError` where there is none.

        A connection that the server closed while it was idle is no failure: the request, which is idempotent, is sent
        once more on a new one.
        """
        return await self._ask(b"GET " + path + self._tail)

    async def put(self, path: bytes, body: bytes) -> Response:
        """As `get`, with a JSON body. Sent once more, a write may so be done twice, and answered as the second."""
        head = b"PUT " + path + self._head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        return await self._ask(head + body)

    async def _ask(self, request: bytes) -> Response:
        try:
            async with asyncio.timeout(self._timeout_s):
                wire = self._wire
                if wire is not None and wire.idle:
                    try:
                        return await wire.exchange(request)
                    except _ClosedError:
                        pass
                wire = await self._connect()
                return await wire.exchange(request)
        except TimeoutError:
            raise RequestError("timeout") from None

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    async def _connect(self) -> _Wire:
        if self._wire is not None and self._wire.idle:
            return self._wire
        self.close()
        loop = asyncio.get_running_loop()
        try:
            _, self._wire = await loop.create_connection(_Wire, self._host, self._port)
        except ConnectionRefusedError:
            raise RequestError("connection refused") from None
        except TimeoutError:
            raise
        except OSError as error:
            raise RequestError(f"cannot connect: {error.strerror or error}") from None
        return self._wire


class _Wire(asyncio.Protocol):
    """One TCP connection and the response that it is reading."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._source = ""
        self._body: list[bytes] = []
        self._begun = False

    @property
    def idle(self) -> bool:
        """Whether it is connected and takes a request."""
        return self._transport is not None and self._waiter is None

    async def exchange(self, request: bytes) -> Response:
        """Raises `RequestError`; abandoned by its caller, it closes the connection, which could only be out of step."""
        transport = self._transport
        if transport is None:
            raise _ClosedError("connection closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._begun = False
        transport.write(request)
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(RequestError("malformed response"))

    def connection_lost(self, _: Exception | None) -> None:
        self._fail(RequestError("connection cut in mid-response") if self._begun else _ClosedError("connection closed"))

    def _fail(self, error: RequestError) -> None:
        self.abort()
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_exception(error)

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._source = ""
        self._body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 7 and name.lower() == b"x-cache":
            self._source = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._waiter is None:
            self.abort()
            return
        response = Response(self._parser.get_status_code(), self._source, b"".join(self._body), time.monotonic())
        waiter, self._waiter = self._waiter, None
        self._begun = False
        if not self._parser.should_keep_alive():
            self.abort()
        if not waiter.done():
            waiter.set_result(response)


def authority(host: str, port: int) -> str:
    """Both, as a URL and a `Host` header have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fault(response: Response, key: int) -> str:
    if response.status != 200:
        return f"status {response.status}"
    if response.source not in SOURCES:
        return "no known X-Cache"
    found = _ID_FIRST.match(response.body)
    if found is None or int(found[1]) != key:
        return "another template's body"
    return ""
