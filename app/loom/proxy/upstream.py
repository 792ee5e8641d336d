"""Dialling the backend: its addresses in turn, within a time, with TLS or without."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from app.concurrency.clock import Clock, monotonic
from app.concurrency.fair_timeout import FairTimeout

P = TypeVar("P", bound=asyncio.Protocol)

_log = logging.getLogger(__name__)

ALPN = "h2"


class DialError(Exception):
    """The backend can't be reached; the message says why, for the log."""


class Upstream:
    """A backend: `host` may be a name with several addresses, which are tried in turn; each dial begins with the next.

    With `tls` the connection is encrypted and must agree on HTTP/2 by ALPN. The name is resolved anew for each dial.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float,
        handshake_s: float,
        tls: ssl.SSLContext | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.host, self.port = host, port
        self._timeout_s = timeout_s
        self._handshake_s = handshake_s
        self._tls = tls
        self._clock = clock
        self._turn = itertools.count()

    @property
    def target(self) -> str:
        """As people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def dial(self, protocol: Callable[[], P]) -> P:
        """A connection, its protocol told of it.

        Raises `DialError`, within the timeout, or soon after it where its name took nearly all of that, or this process
        could not run meanwhile, which is not held against the backend.

        Of several addresses none may take more than its share of the time, so that one that swallows packets does not
        hide the others.
        """
        ends_at = self._clock() + self._timeout_s
        try:
            async with FairTimeout(self._timeout_s):
                addresses = await self._resolve()
        except TimeoutError:
            raise DialError(f"{self.target}: its name was not resolved within {self._timeout_s:g} s") from None
        # Some time is left, where this process was held up, too.
        left_s = max(self._timeout_s / 10, ends_at - self._clock())
        ends_at = self._clock() + left_s
        least_s = left_s / (10 * len(addresses))
        first = next(self._turn) % len(addresses)
        failures = []
        for index in range(len(addresses)):
            address = addresses[(first + index) % len(addresses)]
            share_s = max(least_s, (ends_at - self._clock()) / (len(addresses) - index))
            try:
                async with FairTimeout(share_s):
                    return await self._connect(protocol, address)
            except TimeoutError:
                failures.append(f"{address}: no answer within {share_s:.2g} s")
            except (OSError, DialError) as error:
                failures.append(f"{address}: {_reason(error)}")
        raise DialError(f"{self.target}: {'; '.join(failures)}")

    async def _resolve(self) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter where it can be no name
            raise DialError(f"{self.target}: {getattr(error, 'strerror', None) or error}") from error
        # In one order, whichever way the name server turned them: taking turns is done here.
        addresses = sorted({str(sockaddr[0]) for *_, sockaddr in found})
        if not addresses:
            raise DialError(f"{self.target}: the name has no address")
        return addresses

    async def _connect(self, protocol: Callable[[], P], address: str) -> P:
        loop = asyncio.get_running_loop()
        if self._tls is None:
            _, connected = await loop.create_connection(protocol, address, self.port)
            return connected
        transport, connected = await loop.create_connection(
            protocol,
            address,
            self.port,
            ssl=self._tls,
            server_hostname=self.host,
            ssl_handshake_timeout=self._handshake_s,
        )
        agreed = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if agreed != ALPN:
            transport.abort()
            raise DialError(f"it does not agree on HTTP/2 by ALPN, but on {agreed or 'nothing'}")
        return connected


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
