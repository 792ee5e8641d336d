"""HTTP callers that account for every request they write: answered in full, or lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

FIRST_REQUEST_S = 0.2
"""How long a new connection has to send its first request, at least, though the server ends meanwhile."""


class Answered(NamedTuple):
    """A whole answer, when its request was sent and when it was read (monotonic seconds)."""

    sent: float
    read: float
    status: int
    closes: bool


class Callers:
    """Each sends one request after the other on a keep-alive connection, and opens a new one where told to close.

    It ends where a connection is refused, or where `ending` is set and the connection is closed. `lost` names each
    request that was written on an established connection and not answered in full. A first request that was written
    later than `FIRST_REQUEST_S` is not, as this process was kept from running.
    """

    def __init__(self, http_url: str, ids: Iterator[int], count: int, *, pause_s: float = 0.0) -> None:
        parts = urlsplit(http_url)
        self._host, self._port = parts.hostname, parts.port
        self._ids = ids
        self._count = count
        self._pause_s = pause_s
        self.ending = asyncio.Event()
        """From now on open no new connection: as if a load balancer had taken the server out."""
        self.answered: list[Answered] = []
        self.lost: list[str] = []
        self.refused = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._call() for _ in range(self._count)))

    async def _call(self) -> None:
        while not self.ending.is_set():
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port)
            except ConnectionRefusedError:
                self.refused += 1
                return
            except ConnectionResetError:
                continue  # cut before it was established, with nothing sent
            try:
                await self._use(reader, writer, began)
            finally:
                writer.close()

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, began: float) -> None:
        first, too_late = True, False
        while True:
            sent = time.monotonic()
            template_id = next(self._ids)
            try:
                writer.write(b"GET /template-details?id=%d HTTP/1.1\r\nHost: app\r\n\r\n" % template_id)
                too_late = first and time.monotonic() - began > FIRST_REQUEST_S
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line)
                await reader.readexactly(int(fields["content-length"]))
            except (OSError, asyncio.IncompleteReadError) as error:
                if not too_late:
                    self.lost.append(f"{'first' if first else 'later'} request on its connection: {error!r}")
                return
            closes = fields.get("connection") == "close"
            self.answered.append(Answered(sent, time.monotonic(), int(head.split(b" ")[1]), closes))
            if closes:
                return
            first = False
            await asyncio.sleep(self._pause_s)
