"""Clients over TLS: accepted one by one, so that a handshake that fails is counted and told.

asyncio's own servers tell nobody of those.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from app.concurrency.tasks import TaskSet
from app.loom.proxy.events import Refusal
from app.loom.proxy.legs import Leg, peer_address
from app.loom.proxy.limits import Limits

_log = logging.getLogger(__name__)

RETRY_S: Final = 0.1
"""After the system had no room for one more connection."""
CLOSE_S: Final = 1.0

_PLAINTEXT: Final = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"})
"""OpenSSL's reasons for what does not begin as TLS does."""


class EncryptedServer:
    """Listens, and makes a leg for each client whose handshake has succeeded."""

    def __init__(
        self,
        context: ssl.SSLContext,
        make_leg: Callable[[], Leg],
        on_refused: Callable[[Refusal], None],
        limits: Limits,
    ) -> None:
        self._context = context
        self._make_leg = make_leg
        self._on_refused = on_refused
        self._limits = limits
        self._sockets: list[socket.socket] = []
        self._accepting = TaskSet(limit=16)
        self._handshakes = TaskSet(limit=limits.connections)
        self._unshaken: set[socket.socket] = set()  # accepted, and no handshake has begun

    async def start(self, host: str, port: int, backlog: int) -> int:
        """Returns the port. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                listener = socket.create_server(address, family=family, backlog=backlog)
                self._sockets.append(listener)
                listener.setblocking(False)
        except OSError:
            self._close()
            raise
        for listener in self._sockets:
            self._accepting.start(self._accept(listener))
        listening: int = self._sockets[0].getsockname()[1]
        return listening

    async def aclose(self) -> None:
        """Accept no more; handshakes under way are ended."""
        with contextlib.suppress(TimeoutError):
            await self._accepting.aclose(CLOSE_S)
        self._close()  # now that nobody waits on them: their numbers may be another's at once
        with contextlib.suppress(TimeoutError):
            await self._handshakes.aclose(CLOSE_S)
        for client in self._unshaken:
            client.close()

    def _close(self) -> None:
        for listener in self._sockets:
            listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, address = await loop.sock_accept(listener)
            except OSError as error:
                _log.warning("a client can't be accepted: %s", error.strerror or error)
                await asyncio.sleep(RETRY_S)
                continue
            self._unshaken.add(client)
            if self._handshakes.start(self._shake_hands(client, peer_address(address))) is None:
                self._unshaken.discard(client)
                client.close()
                self._on_refused("full")

    async def _shake_hands(self, client: socket.socket, peer: str) -> None:
        self._unshaken.discard(client)
        loop = asyncio.get_running_loop()
        limit_s = self._limits.handshake_s
        try:
            await loop.connect_accepted_socket(self._make_leg, client, ssl=self._context, ssl_handshake_timeout=limit_s)
        except OSError as error:  # those of TLS and of time too
            why, words = _failure(error, limit_s)
            self._on_refused(why)
            _log.warning("a connection from %s is refused, %s", peer, words)


def _failure(error: OSError, limit_s: float) -> tuple[Refusal, str]:
    if isinstance(error, ssl.SSLError):
        if error.reason in _PLAINTEXT:
            return "plaintext", "it speaks no TLS, and this port does"
        return "handshake", f"its TLS handshake failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, ConnectionAbortedError):
        return "handshake", f"its TLS handshake was not done within {limit_s:g} s"
    return "handshake", "it left during the TLS handshake, as one does that does not trust the certificate"
