"""A gRPC channel to the backend that goes the way the calls go: its addresses in turn, and the same TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import grpc

from app.concurrency.tasks import TaskSet
from app.loom.proxy.upstream import DialError, Upstream

MAX_CONNECTIONS: Final = 4
MAX_MESSAGE_BYTES: Final = 64 << 20
CLOSE_TIMEOUT_S: Final = 2.0


@asynccontextmanager
async def channel(upstream: Upstream) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that dials by `upstream`, through a socket that only this user can reach.

    gRPC makes no connection from an `ssl.SSLContext`, so the encryption is done here, behind that socket: whatever the
    calls' leg does (an authority of its own, a client certificate, no verification), this does too. Raises `OSError`
    where the socket can't be made.
    """
    async with _listening(upstream) as (target, options), grpc.aio.insecure_channel(target, options=options) as made:
        yield made


@asynccontextmanager
async def blocking_channel(upstream: Upstream, authority: str | None = None) -> AsyncIterator[grpc.Channel]:
    """The same, for threads. Nothing may wait for it on the event loop, which the tunnel runs on.

    `authority` is told to the backend in place of its address.
    """
    async with _listening(upstream, authority) as (target, options):
        with grpc.insecure_channel(target, options=options) as made:
            yield made


@asynccontextmanager
async def _listening(
    upstream: Upstream, authority: str | None = None
) -> AsyncIterator[tuple[str, list[tuple[str, str | int]]]]:
    loop = asyncio.get_running_loop()
    ends: set[_End] = set()
    dials = TaskSet(limit=MAX_CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="loom-") as folder:  # of mode 0700
        path = os.path.join(folder, "s")  # noqa: PTH118 - short: a socket's path has 104 bytes on macOS
        server = await loop.create_unix_server(lambda: _Near(upstream, dials, ends), path)
        options: list[tuple[str, str | int]] = [
            ("grpc.default_authority", authority or upstream.target),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_retries", 0),
        ]
        try:
            yield f"unix:{path}", options
        finally:
            server.close()
            for end in list(ends):
                end.transport.abort()
            with contextlib.suppress(TimeoutError):
                await dials.aclose(CLOSE_TIMEOUT_S)


class _End(asyncio.Protocol):
    """One side of a tunnel: what it receives goes out on the other, no faster than that takes it."""

    transport: asyncio.Transport

    def __init__(self, ends: set[_End], other: _End | None = None) -> None:
        self.other = other
        self._ends = ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ends.add(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self._ends.discard(self)
        if self.other is not None:
            self.other.transport.close()


class _Near(_End):
    """gRPC's side, which the backend is dialled for."""

    def __init__(self, upstream: Upstream, dials: TaskSet, ends: set[_End]) -> None:
        super().__init__(ends)
        self._upstream = upstream
        self._dials = dials
        self._greeting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._dials.start(self._reach()) is None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.other is None:  # nobody to give it to yet; uvloop reads even what was told to pause when it was made
            self._greeting += data
            self.transport.pause_reading()
        else:
            self.other.transport.write(data)

    async def _reach(self) -> None:
        try:
            far = await self._upstream.dial(lambda: _End(self._ends, self))
        except DialError:
            self.transport.abort()
            return
        if self in self._ends:
            self.other = far
            far.transport.write(self._greeting)
            self.transport.resume_reading()
        else:  # gRPC has gone meanwhile
            far.transport.abort()
