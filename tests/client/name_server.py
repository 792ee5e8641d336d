"""A name server that says what a test tells it: A records, in plain DNS over UDP (RFC 1035)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

HEADER = struct.Struct("!HHHHHH")
RECORD = struct.Struct("!HHHIH")
A, IN = 1, 1
NAME_OF_QUESTION = 0xC00C
ANSWERED = 0x8180  # a response, recursion available


class NameServer(asyncio.DatagramProtocol):
    """Every name has the same `addresses`, for no time at all (TTL 0). `queries` counts those for A records."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.queries = 0
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, sender: tuple[str | int, ...]) -> None:
        end = data.index(0, HEADER.size) + 5  # the name ends with an empty label; type and class follow
        question = data[HEADER.size : end]
        (kind,) = struct.unpack("!H", question[-4:-2])
        self.queries += kind == A
        found = self.addresses if kind == A else []
        records = (RECORD.pack(NAME_OF_QUESTION, A, IN, 0, 4) + socket.inet_aton(each) for each in found)
        header = HEADER.pack(*struct.unpack("!H", data[:2]), ANSWERED, 1, len(found), 0, 0)
        self._transport.sendto(header + question + b"".join(records), sender)


@asynccontextmanager
async def naming(*addresses: str) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(*addresses), ("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
