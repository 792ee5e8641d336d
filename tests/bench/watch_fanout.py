"""How long a change in the database takes to reach a thousand watchers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import quantiles
from typing import Any

import asyncpg
import grpc
import uvloop

from app.embedded.stack import EmbeddedStack
from app.proto.template.v1.template_pb2 import WatchTemplatesRequest, WatchTemplatesResponse
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.bench import servers
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject

WATCHERS = 1_000
CHANNELS = 8
CALLS_A_CHANGE = 250
"""Of an effort's calls; so many changes are made."""
DEADLINE_S = 60.0
TEMPLATE = 1


def _watch_fanout(effort: Effort) -> dict[str, Run]:
    changes = max(2, effort.calls // CALLS_A_CHANGE)
    with EmbeddedStack() as stack, servers.app(stack) as app:
        try:
            crowd, alone = uvloop.run(_measure(app.grpc_target, stack.postgres.url("app"), changes))
        except (TimeoutError, grpc.RpcError, OSError, asyncpg.PostgresError) as error:
            raise BenchError(f"not every watcher was told of every change: {error!r}") from error
    return {
        "watch_fanout_ms": Run(_percentile(crowd, 99), _percentile(alone, 99)),
        "watch_fanout_p50_ms": Run(_percentile(crowd, 50), _percentile(alone, 50)),
    }


async def _measure(target: str, database_url: str, changes: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a statement's begin until a watcher had the new version: of a thousand, and of one alone."""
    async with AsyncExitStack() as opened:
        connection = await asyncpg.connect(database_url)
        opened.push_async_callback(connection.close)
        stubs = []
        for _ in range(CHANNELS):
            channel = grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
            stubs.append(TemplateServiceStub(await opened.enter_async_context(channel)))  # type: ignore[no-untyped-call]
        alone = await _told(connection, stubs, 1, changes)
        return await _told(connection, stubs, WATCHERS, changes), alone


async def _told(connection: Any, stubs: Sequence[Any], watchers: int, changes: int) -> list[float]:
    calls = [
        stubs[number % len(stubs)].WatchTemplates(WatchTemplatesRequest(ids=[TEMPLATE])) for number in range(watchers)
    ]
    taken = []
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(call.read() for call in calls))
        for number in range(changes):
            reading = [asyncio.create_task(_read(call)) for call in calls]
            await asyncio.sleep(0.1)  # all of them wait by then
            began = time.perf_counter()
            version = await connection.fetchval(
                "UPDATE templates SET name = $2 WHERE id = $1 RETURNING version", TEMPLATE, f"change {number}"
            )
            for response, at in await asyncio.gather(*reading):
                if response.state.version != version:
                    raise BenchError(f"a watcher was told version {response.state.version} in place of {version}")
                taken.append((at - began) * 1e3)
    for call in calls:
        call.cancel()
    return taken


async def _read(call: Any) -> tuple[WatchTemplatesResponse, float]:
    return await call.read(), time.perf_counter()


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
"""From the begin of the UPDATE to the message in the caller's hands: the 99th percentile over all watchers and changes,
and the median. One server process; all watchers are grpc.aio's, in one client process."""
