"""The two sockets of a connection, as asyncio protocols: what is received on one is written to the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from app.concurrency.unsent import unsent_bytes
from app.loom.proxy.backlog import Backlog
from app.loom.proxy.limits import Limits
from app.loom.proxy.relay import Relay

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 20, "TCP_KEEPALIVE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""Seconds of silence before a peer is probed, between probes, and how many; macOS calls the first TCP_KEEPALIVE."""
_USER_TIMEOUT_MS: Final = 120_000
"""How long sent bytes may stay unacknowledged. The kernel counts a closed window in, so that this is also how long a
client that is halted in a debugger may leave its buffers full."""
LOOK_S: Final = 0.05
"""How often a connection over TLS that is to end is asked whether all has gone out."""
LOOKS: Final = 3
"""So often in a row all must have: below TLS the transport has a buffer, too, of which is known only that the kernel
gets it as soon as it takes more."""


class Leg(asyncio.Protocol):
    """One side's socket. Until it is joined to the other, what it receives goes to `received`."""

    def __init__(self, limits: Limits) -> None:
        self.transport: asyncio.Transport
        self.other: Leg | None = None
        self.is_finished = False
        """Whether nothing more will come from this side."""
        self.is_lost = False
        self.is_tls = False
        self.is_told_end = False
        """Whether this side was told that nothing more comes: nothing may be written to it."""
        self._is_leaving = False
        self._limits = limits
        self.on_finished: Callable[[Leg], None] = lambda _leg: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        self.is_tls = transport.get_extra_info("ssl_object") is not None
        _watch_for_vanished(transport.get_extra_info("socket"))

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self._finish()
        return not self.is_tls  # over TLS there is no half-closing: the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whichever way it was lost
        self.is_lost = True
        self._finish()

    def send(self, data: bytes) -> None:
        """Write, unless this side wants no more."""
        if not self.is_told_end and not self.transport.is_closing():
            self.transport.write(data)

    def tell_end(self) -> None:
        """Once all that was written has gone out: nothing more comes."""
        if self.is_told_end or self.transport.is_closing():
            return
        self.is_told_end = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.end()

    def end(self) -> None:
        """Close it once all that was written has gone out."""
        self.transport.close()
        if self.is_tls and not self._is_leaving:
            self._is_leaving = True
            self._leave(LOOKS)

    def _leave(self, looks: int) -> None:
        """A peer may never answer that TLS ends, gRPC's own don't: once it has all, nothing is to be waited for."""
        if self.is_lost:
            return
        if unsent_bytes(self.transport):
            looks = LOOKS
        if looks:
            asyncio.get_running_loop().call_later(LOOK_S, self._leave, looks - 1)
        else:
            self.transport.abort()

    def _finish(self) -> None:
        self.is_finished = True
        self.on_finished(self)

    def discard(self) -> None:
        """From now on nobody wants the bytes; they are still read, so that this side's end is noticed."""
        self.resume()

    def resume(self) -> None:
        """Read it, if it was not read for a while."""
        if not self.transport.is_closing():
            self.transport.resume_reading()


class ClientLeg(Leg):
    """The client's side: first its preface, then bytes for the backend."""

    def __init__(self, limits: Limits, on_accepted: Callable[[], None], on_greeting: Callable[[bytes], None]) -> None:
        super().__init__(limits)
        self._on_accepted = on_accepted
        self._receive = on_greeting
        self._read: Callable[[bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._on_accepted()

    def join(self, backend: Leg, relay: Relay, backlog: Backlog) -> None:
        """From now on bytes go to the backend, and into the backlog for the relay to read."""
        self.other = backend
        self._receive, self._read = backend.transport.write, partial(backlog.add, relay.client_bytes)

    def intercept(self, backend: Leg | None, receive: Callable[[bytes], None]) -> None:
        """From now on bytes go to the intercept lane."""
        self.other = backend
        self._receive, self._read = receive, None

    def discard(self) -> None:
        super().discard()
        self._receive, self._read = _discard, None

    def data_received(self, data: bytes) -> None:
        self._receive(data)
        if self._read is not None:
            self._read(data)


class BackendLeg(Leg):
    """The backend's side: bytes for the client, once the two are joined."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.early = bytearray()
        """What came before the joining."""
        self._write: Callable[[bytes], None] = self._keep
        self._read: Callable[[bytes], None] | None = None
        self._relay: Relay | None = None
        self._backlog: Backlog | None = None
        self._put_in = b""

    def join(self, client: Leg, relay: Relay, backlog: Backlog) -> None:
        """From now on bytes go to the client, and into the backlog for the relay to read."""
        self.other = client
        self._relay, self._backlog = relay, backlog
        self._write, self._read = client.transport.write, partial(backlog.add, relay.backend_bytes)
        if self.early:
            self.data_received(bytes(self.early))
            self.early.clear()

    def intercept(self, client: Leg, receive: Callable[[bytes], None]) -> None:
        """From now on bytes go to the intercept lane."""
        self.other = client
        self._write = receive
        if self.early:
            self.data_received(bytes(self.early))
            self.early.clear()

    def discard(self) -> None:
        super().discard()
        self._write, self._read, self._put_in = _discard, None, b""

    def put_in(self, frame: bytes) -> None:
        """Send the client a frame of Loom's own, as soon as no header block and no other frame is cut by it.

        One between HEADERS and CONTINUATION breaks the connection (RFC 9113, section 4.3).
        """
        if self._relay is None or self._backlog is None or self._read is None:
            return  # not joined to a client, or no longer
        if self.other is not None and not self.other.is_told_end:
            self._backlog.read()
            if self._relay.is_greeted and self._relay.at_boundary:
                self._write(frame)
            else:
                self._put_in = frame

    def data_received(self, data: bytes) -> None:
        if self._put_in:
            self._put_into(data)
            return
        self._write(data)
        if self._read is not None:
            self._read(data)

    def _put_into(self, data: bytes) -> None:
        assert self._relay is not None  # noqa: S101 - there is nothing to put in before
        assert self._backlog is not None  # noqa: S101 - the same
        frame = self._put_in
        self._backlog.read()
        self._relay.backend_bytes(data)
        boundary = self._relay.boundary
        if boundary is None:
            self._write(data)
            return
        self._put_in = b""
        self._write(data[:boundary])
        self._write(frame)
        if boundary < len(data):
            self._write(data[boundary:])

    def _keep(self, data: bytes) -> None:
        self.early += data
        self.transport.pause_reading()


def peer_address(peername: object) -> str:
    """A socket's name, as people write it."""
    if not isinstance(peername, tuple):
        return "unknown"
    host, port, *_ = peername
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _discard(_data: bytes) -> None:
    pass


def _watch_for_vanished(connection: socket.socket) -> None:
    """Have the kernel find out when the peer is gone without a word."""
    with contextlib.suppress(OSError):  # where it is gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if sys.platform == "linux":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
