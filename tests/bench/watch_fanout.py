"""How long a change in the database takes to reach a thousand watchers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import quantiles
from typing import Any, cast

import asyncpg
import uvloop

from app.embedded.stack import EmbeddedStack
from app.proto.template.v1.template_pb2 import WatchTemplatesRequest, WatchTemplatesResponse
from tests.bench import servers
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    frame,
    frames,
    greeting,
    grpc_call,
)

WATCHERS = 1_000
CONNECTIONS = 4
METHOD = "/template.v1.TemplateService/WatchTemplates"
GRPC_HEAD_BYTES = 5
"""Before each message on a stream: whether it is compressed, and its length."""
CALLS_A_CHANGE = 250
"""Of an effort's calls; so many changes are made."""
DEADLINE_S = 60.0
TEMPLATE = 1


def _watch_fanout(effort: Effort) -> dict[str, Run]:
    changes = max(2, effort.calls // CALLS_A_CHANGE)
    with EmbeddedStack() as stack, servers.app(stack) as app:
        try:
            crowd, alone = uvloop.run(_measure(app.grpc_target, stack.postgres.url("app"), changes))
        except (TimeoutError, OSError, asyncpg.PostgresError) as error:
            raise BenchError(f"not every watcher was told of every change: {error!r}") from error
    return {
        "watch_fanout_ms": Run(_percentile(crowd, 99), _percentile(alone, 99)),
        "watch_fanout_p50_ms": Run(_percentile(crowd, 50), _percentile(alone, 50)),
    }


async def _measure(target: str, database_url: str, changes: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a statement's begin until a watcher had the new version: of a thousand, and of one alone."""
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(DEADLINE_S):
            alone = await _told(connection, target, 1, 1, changes)
            return await _told(connection, target, CONNECTIONS, WATCHERS // CONNECTIONS, changes), alone
    finally:
        await connection.close()


async def _told(
    connection: asyncpg.Connection[Any], target: str, connections: int, watchers: int, changes: int
) -> list[float]:
    host, _, port = target.rpartition(":")
    loop = asyncio.get_running_loop()
    clients = [_Watchers(target, watchers) for _ in range(connections)]
    taken = []
    try:
        for client in clients:
            await loop.create_connection(lambda client=client: client, host, int(port))  # type: ignore[misc]
        await asyncio.gather(*(client.all_told() for client in clients))
        for number in range(changes):
            await asyncio.sleep(0.05)
            for client in clients:
                client.expect()
            began = time.perf_counter()
            version = await connection.fetchval(
                "UPDATE templates SET name = $2 WHERE id = $1 RETURNING version", TEMPLATE, f"change {number}"
            )
            for client in clients:
                for at, message in await client.all_told():
                    told = WatchTemplatesResponse.FromString(message).state.version
                    if told != version:
                        raise BenchError(f"a watcher was told version {told} in place of {version}")
                    taken.append((at - began) * 1e3)
    finally:
        for client in clients:
            client.close()
    if len(taken) != connections * watchers * changes:
        raise BenchError(f"{len(taken)} messages came in place of {connections * watchers * changes}")
    return taken


class _Watchers(asyncio.Protocol):
    """One connection with so many watches, each a stream. It notes when each was told, and what."""

    def __init__(self, target: str, watchers: int) -> None:
        call = grpc_call(target, METHOD, WatchTemplatesRequest(ids=[TEMPLATE]).SerializeToString())
        self._headers, self._body = call
        self._watchers = watchers
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._parts: dict[int, bytes] = {}
        self.expect()

    def expect(self) -> None:
        """From now on one message on each stream is waited for."""
        self._taken: list[tuple[float, bytes]] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def all_told(self) -> list[tuple[float, bytes]]:
        """When each watcher had its message, and the message."""
        await self._done
        return self._taken

    def close(self) -> None:
        self._done.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        calls = [
            frame(HEADERS, END_HEADERS, stream, self._headers) + frame(DATA, END_STREAM, stream, self._body)
            for stream in range(1, 2 * self._watchers, 2)
        ]
        self._transport.write(greeting() + b"".join(calls))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the server closed a connection: {error}" if error else "the server closed a connection")

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        received, self._buffer = frames(self._buffer + data)
        replies = []
        for kind, flags, stream, payload in received:
            if kind == DATA:
                part = self._parts.pop(stream, b"") + payload
                if len(part) < GRPC_HEAD_BYTES or len(part) < GRPC_HEAD_BYTES + int.from_bytes(part[1:5], "big"):
                    self._parts[stream] = part
                else:
                    self._taken.append((now, part[GRPC_HEAD_BYTES:]))
            elif kind in (SETTINGS, PING) and not flags & ACK:
                replies.append(frame(kind, ACK, 0, b"" if kind == SETTINGS else payload))
            elif kind in (RST_STREAM, GOAWAY) or (kind == HEADERS and flags & END_STREAM):
                self._fail("the server ended a watch or the connection")
        if replies and self._transport is not None:
            self._transport.write(b"".join(replies))
        if len(self._taken) >= self._watchers and not self._done.done():
            self._done.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self._done.done():
            self._done.set_exception(BenchError(reason))


def _percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


_BASELINE = "one watcher alone"

WATCH_FANOUT = Subject(
    [
        Figure("watch_fanout_ms", "ms", baseline=_BASELINE, at_most=250),
        Figure("watch_fanout_p50_ms", "ms", baseline=_BASELINE),
    ],
    _watch_fanout,
)
"""From the begin of the UPDATE to the message at the caller: the 99th percentile over all watchers and changes,
and the median. One server process; the watchers are streams of four connections, of a client that costs far less than
what it measures."""
