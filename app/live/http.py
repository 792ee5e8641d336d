"""HTTP requests to other processes of the stack: one a connection, bounded in time and size."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httptools

from app.concurrency.resolver import Resolver

CONNECT_TIMEOUT_S: Final = 2.0
MAX_ADDRESSES: Final = 4
_CHUNK_BYTES: Final = 65_536


class HttpError(Exception):
    """No answer, or none that can be used. `str` says why, fit for people."""


class Place(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Place:
        """Raises `ValueError` unless it reads http://host:port."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"must be http://host:port, not {url!r}")
        if parts.username is not None:
            raise ValueError("must be http://host:port, without a user")
        return cls(parts.hostname, parts.port or 80)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """A request's head, but for its last line."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{self.port}", "Connection: close", *headers]
        return "".join(f"{line}\r\n" for line in lines).encode("ascii")


class Answer:
    """An answer as it is read. `status` is known before the first piece of its body comes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._is_whole = False
        self.status = 0

    async def pieces(self, silence_s: float) -> AsyncGenerator[bytes]:
        """The body as it comes; `HttpError` where nothing comes for so long, or what comes is no HTTP."""
        while not self._is_whole:
            try:
                async with asyncio.timeout(silence_s):
                    data = await self._reader.read(_CHUNK_BYTES)
            except TimeoutError:
                raise HttpError(f"nothing came for {silence_s:g} s") from None
            except OSError as error:
                raise HttpError(error.strerror or str(error)) from None
            if not data:
                raise HttpError("the connection was closed before the end of the answer")
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                raise HttpError("what answered is no HTTP server") from None
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece

    async def whole(self, timeout_s: float, most_bytes: int) -> bytes:
        """All of the body."""
        body = b""
        try:
            async with asyncio.timeout(timeout_s):
                async for piece in self.pieces(timeout_s):
                    body += piece
                    if len(body) > most_bytes:
                        raise HttpError(f"the answer has more than {most_bytes} bytes")
        except TimeoutError:
            raise HttpError(f"no answer within {timeout_s:g} s") from None
        return body

    # Called by the parser.

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._is_whole = True


async def _connected(place: Place, resolver: Resolver) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """By the first of its addresses that takes it. Raises `OSError`."""
    refused: OSError = OSError("it has no address")
    for address in (await resolver.addresses(place.host))[:MAX_ADDRESSES]:
        try:
            return await asyncio.open_connection(address, place.port)
        except OSError as error:
            refused = error
    raise refused


@contextlib.asynccontextmanager
async def asked(place: Place, request: bytes, resolver: Resolver) -> AsyncIterator[Answer]:
    """The answer to a request, on a connection of its own. Raises `HttpError`."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await _connected(place, resolver)
    except TimeoutError:
        raise HttpError(f"no connection to {place.host}:{place.port} within {CONNECT_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise HttpError(f"no connection to {place.host}:{place.port}: {error.strerror or error}") from None
    try:
        writer.write(request)
        yield Answer(reader)
    finally:
        writer.transport.abort()  # whatever is left unread, nobody reads it
