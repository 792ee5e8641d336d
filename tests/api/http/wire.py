"""HTTP/1.1 by hand: bytes out, answers in, each wait with a deadline."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

DEADLINE_S = 15.0


GET = b"GET /template-details?id=%d HTTP/1.1\r\nHost: app\r\n\r\n"
GOOD = b'{"name":"a","body":"b"}'
"""A body that is taken."""


def put(*headers: bytes, template_id: int = 1) -> bytes:
    """The head of a PUT."""
    lines = [b"PUT /template-details?id=%d HTTP/1.1" % template_id, b"Host: app", b"Content-Type: application/json"]
    return b"\r\n".join([*lines, *headers, b"", b""])


class HangError(AssertionError):
    """Nothing came within the deadline, neither an answer nor the connection's end."""


class CutShortError(AssertionError):
    """The connection ended inside an answer."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Raises `OSError` where the other side has closed."""
        self._writer.write(data)
        async with self._deadline():
            await self._writer.drain()

    def finish_sending(self) -> None:
        """Half-close: nothing more comes from here, but answers may."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Leave, in the middle of whatever goes on."""
        self._writer.transport.abort()

    async def answer(self, *, to_head: bool = False) -> Answer | None:
        """The next answer, or `None` where the connection ends instead. Raises `CutShortError`, `HangError`."""
        async with self._deadline():
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise CutShortError(error.partial) from None
                return None
            except ConnectionResetError:
                return None
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            status = int(first.split(" ")[1])
            bare = to_head or status in (204, 304) or status < 200
            try:
                body = b"" if bare else await self._reader.readexactly(int(headers["content-length"]))
            except (asyncio.IncompleteReadError, ConnectionResetError):
                raise CutShortError(head) from None
            return Answer(status, headers, body)

    async def answers(self) -> list[Answer]:
        """All answers until the connection ends."""
        found = []
        while (answer := await self.answer()) is not None:
            found.append(answer)
        return found

    async def is_closed_by_peer(self) -> bool:
        """Waits for the end; whether it came before anything else."""
        return await self.answer() is None

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield
        except TimeoutError:
            raise HangError from None


@asynccontextmanager
async def connected(port: int, *, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """A connection to loopback; `receive_buffer` bytes are all that this side takes unread.

    Its send buffer is small, so that little is on the way that the other side has not read.
    """
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=receive_buffer or 65_536)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def is_final_problem(answer: Answer | None, status: int, code: str) -> None:
    """Fails unless it is problem details of this status and code, and the last answer on its connection."""
    assert answer is not None
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert answer.headers["connection"] == "close"
