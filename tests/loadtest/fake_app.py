"""An app small enough to misbehave on demand: the part of the service's surface that a load test touches."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from types import TracebackType
from typing import Self

from app.loadtest.target import Target


class FakeApp:
    """Serves ids from a cache in memory, coalescing loads unless told not to. A context manager.

    `faults` maps the number of a template request (from 1, in order of arrival) to what is to go wrong with it.
    `crowd` holds every template request back until so many have come, `overcount` inflates the app's count of loads.
    """

    def __init__(
        self,
        *,
        faults: dict[int, str] | None = None,
        crowd: int = 1,
        overcount: int = 0,
        coalesce: bool = True,
        metrics: str | None = None,
    ) -> None:
        self.requests = 0
        self.reached = asyncio.Event()
        self.connections = 0
        self.scrapes = 0
        self.loads = 0
        self.counts: Counter[str] = Counter()
        self.restart_after: int | None = None
        self._faults = faults or {}
        self._crowd = crowd
        self._waiting = 0
        self._gate = asyncio.Event()
        self._overcount = overcount
        self._coalesce = coalesce
        self._metrics = metrics
        self._cached: set[int] = set()
        self._flights: dict[int, asyncio.Event] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def target(self) -> Target:
        return Target(url=f"http://127.0.0.1:{self.port}", database_url=None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.match(rb"GET /template-details\?id=(\d+) HTTP/1\.1\r\n", head)
                going_on = await (self._template(int(found[1]), writer) if found else self._scrape(writer))
                if not going_on:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _scrape(self, writer: asyncio.StreamWriter) -> bool:
        self.scrapes += 1
        text = self.metrics() if self._metrics is None else self._metrics
        await _answer(writer, text.encode())
        return True

    def metrics(self) -> str:
        if self.restart_after is not None and self.requests >= self.restart_after:
            self.loads, self.counts = 0, Counter()
        reads = "".join(f'cache_reads_total{{source="{name}"}} {n}.0\n' for name, n in self.counts.items())
        return (
            f"db_hits_total {1000 + self.loads + self._overcount}.0\n"
            f"singleflight_shared_total {7 + self.counts['shared']}.0\n"
            f'cache_hits_total{{tier="l1"}} 0.0\ncache_hits_total{{tier="l2"}} {self.counts["l2"]}.0\n'
            f"cache_misses_total {self.counts['origin'] + self.counts['shared']}.0\n{reads}"
            'http_in_flight_requests 1.0\ncache_ttl_seconds 30.0\napp_info{mode="singleflight",version="9.9"} 1.0\n'
        )

    async def _template(self, key: int, writer: asyncio.StreamWriter) -> bool:
        self.requests += 1
        self.reached.set()
        number = self.requests
        await self._meet()
        body, source = b'{"id":%d,"name":"x"}' % key, await self._source(key)
        match self._faults.get(number):
            case "refuse":
                await _answer(writer, b"{}", status=503)
            case "wrong body":
                await _answer(writer, b'{"id":%d,"name":"x"}' % (key + 1), source)
            case "no source":
                await _answer(writer, body)
            case "close":
                return False
            case "cut":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                await writer.drain()
                return False
            case "garbage":
                writer.write(b"what?\r\n\r\n")
                await writer.drain()
                return False
            case "hang":
                await asyncio.Event().wait()
            case "last":
                await _answer(writer, body, source, extra=b"connection: close\r\n")
            case "crumbs":
                await _answer(writer, body, source, piecewise=True)
            case _:
                await _answer(writer, body, source)
        return True

    async def _meet(self) -> None:
        self._waiting += 1
        if self._waiting == self._crowd:
            self._waiting = 0
            self._gate.set()
            self._gate = asyncio.Event()
        else:
            await self._gate.wait()

    async def _source(self, key: int) -> str:
        source = "l2"
        if key in self._flights and self._coalesce:
            await self._flights[key].wait()
            source = "shared"
        elif key not in self._cached:
            source = "origin"
            self._flights[key] = asyncio.Event()
            await asyncio.sleep(0.001)
            self.loads += 1
            self._cached.add(key)
            self._flights.pop(key, asyncio.Event()).set()
        self.counts[source] += 1
        return source


async def _answer(
    writer: asyncio.StreamWriter,
    body: bytes,
    source: str = "",
    *,
    status: int = 200,
    extra: bytes = b"",
    piecewise: bool = False,
) -> None:
    told = f"X-Cache: {source}\r\n".encode() if source else b""
    head = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n" % (status, len(body))
    message = head + told + extra + b"\r\n" + body
    if not piecewise:
        writer.write(message)
        await writer.drain()
        return
    for n in range(len(message)):
        writer.write(message[n : n + 1])
        await writer.drain()
        await asyncio.sleep(0)
