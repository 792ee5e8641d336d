"""An open loop: requests sent at scheduled times, whether or not earlier ones have been answered.

Latency counts from the scheduled time. A closed loop, which waits for an answer before it asks again, sends least just
when the server is slowest, and so hides what it set out to measure (coordinated omission).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.loadtest.errors import RequestError
from app.loadtest.http import Connection, Response

_VERSION = re.compile(rb'"version":(\d+)[,}]')


class Answer(NamedTuple):
    """What became of one request: times in seconds on the monotonic clock, `status` 0 where no response came.

    `due` is when it was to be sent, `sent` when a connection took it. `server` is the endpoint's number, `source` the
    response's `X-Cache`, `version` that of the template (0 where there was none). `error` is empty for a good response.
    """

    key: int
    server: int
    due: float
    sent: float
    end: float
    status: int
    source: str
    version: int
    error: str

    @property
    def seconds(self) -> float:
        # A timer may fire a little early; what was sent then did not wait.
        return self.end - min(self.due, self.sent)


class Endpoint:
    """One server, over as many connections as there are requests at a time, at most `most`; more wait their turn."""

    def __init__(self, number: int, host: str, port: int, *, timeout_s: float, most: int = 10_000) -> None:
        self.number = number
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(most)
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def open(self, connections: int) -> None:
        """Have so many connections at hand. Raises `RequestError`."""
        while len(self._idle) < connections:
            connection = self._new()
            await connection.open()
            self._idle.append(connection)

    async def get(self, key: int, due: float | None = None) -> Answer:
        """Read a template. `due` is now unless it is given."""
        due = time.monotonic() if due is None else due
        async with self._turns:
            sent = time.monotonic()
            connection = self._idle.pop() if self._idle else self._new()
            try:
                response = await connection.get(b"/template-details?id=%d" % key)
            except RequestError as error:
                return Answer(key, self.number, due, sent, time.monotonic(), 0, "", 0, error.kind)
            finally:
                self._idle.append(connection)
        fault = "" if response.status == 200 else f"status {response.status}"
        version = template_version(response)
        return Answer(key, self.number, due, sent, response.end, response.status, response.source, version, fault)

    async def page(self, path: bytes) -> Response:
        """Any page, on a connection of its own. Raises `RequestError`."""
        connection = self._new()
        try:
            return await connection.get(path)
        finally:
            self._all.discard(connection)
            connection.close()

    async def replace(self, key: int, body: bytes) -> Response:
        """Replace a template, on a connection of its own. Raises `RequestError`."""
        connection = self._new()
        try:
            return await connection.put(b"/template-details?id=%d" % key, body)
        finally:
            self._all.discard(connection)
            connection.close()

    def close(self) -> None:
        """Close every connection; requests under way fail."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()

    def _new(self) -> Connection:
        connection = Connection(self._host, self._port, self._timeout_s)
        self._all.add(connection)
        return connection


class OpenLoop:
    """`rate` requests a second, to the endpoints in turn, for keys as `next_key` says.

    `record` is told of every answer. At most `rate` times the endpoints' timeout requests are under way at a time.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], rate: float, next_key: Callable[[], int], record: Callable[[Answer], None]
    ) -> None:
        self._endpoints = {endpoint.number: endpoint for endpoint in endpoints}
        self._rate = rate
        self._next_key = next_key
        self._record = record
        self._under_way: set[asyncio.Task[None]] = set()
        self._resting: set[int] = set()

    def rest(self, server: int) -> None:
        """Send nothing more to a server, as a load balancer would that knows it to be gone."""
        self._resting.add(server)

    def resume(self, server: int) -> None:
        self._resting.discard(server)

    async def run(self) -> None:
        """Send until cancelled; then wait for what is under way, which the endpoints' timeout bounds."""
        began = time.monotonic()
        sent = 0
        try:
            while True:
                due = began + sent / self._rate
                pause_s = due - time.monotonic()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                serving = [e for number, e in self._endpoints.items() if number not in self._resting]
                if serving:
                    task = asyncio.create_task(self._send(serving[sent % len(serving)], due))
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
                sent += 1
        finally:
            if self._under_way:
                await asyncio.wait(self._under_way)

    async def _send(self, endpoint: Endpoint, due: float) -> None:
        self._record(await endpoint.get(self._next_key(), due))


def template_version(response: Response) -> int:
    """The version in a template's JSON: its last field of that name, after name and body; 0 where there is none."""
    found = _VERSION.findall(response.body[-128:]) if response.status == 200 else []
    return int(found[-1]) if found else 0
