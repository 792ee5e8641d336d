"""What an import of 100,000 templates adds to a replica's memory, and how fast it goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import grpc
import psutil
import uvloop

from app.client.errors import CallError
from app.client.templates import TemplateClient
from app.embedded.stack import EmbeddedStack
from tests.bench import servers
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject

BODY = "Dear {{name}}, " * 34
LOOK_EVERY = 1_000
"""Templates between two looks at the memory."""
WARM_UP = 100
SETTLE_S = 1.0
"""The replica hears of what it has imported, too."""


def _imports(effort: Effort) -> dict[str, Run]:
    with EmbeddedStack() as stack, servers.app(stack) as app:
        try:
            return uvloop.run(_measure(app, stack.postgres.url("app"), effort.requests))
        except (CallError, grpc.RpcError, OSError, asyncpg.PostgresError) as error:
            raise BenchError(f"the import failed: {error!r}") from error


async def _measure(app: servers.Server, database_url: str, count: int) -> dict[str, Run]:
    highest = 0

    async def templates(process: psutil.Process, number: int) -> AsyncIterator[tuple[str, str]]:
        nonlocal highest
        for place in range(number):
            if place % LOOK_EVERY == 0:
                highest = max(highest, process.memory_info().rss)
            yield f"imported {place}", BODY

    async with TemplateClient(app.grpc_target) as client:
        await client.import_templates(templates(app.process, WARM_UP))
        before, highest = app.rss_mb(), 0
        begun = time.perf_counter()
        made = await client.import_templates(templates(app.process, count))
        took_s = time.perf_counter() - begun
        await asyncio.sleep(SETTLE_S)
    added = max(highest / 1e6, app.rss_mb()) - before
    return {
        "import_100k_rss_mb": Run(added, made.bytes / 1e6, sound=made.count == count),
        "import_100k_s": Run(took_s, await _copied(database_url, count), sound=made.count == count),
    }


async def _copied(database_url: str, count: int) -> float:
    """How long one COPY of the same takes that the database's own client sends."""
    connection = await asyncpg.connect(database_url)
    try:
        records = [(f"copied {place}", BODY) for place in range(count)]
        begun = time.perf_counter()
        await connection.copy_records_to_table("templates", records=records, columns=["name", "body"])
        return time.perf_counter() - begun
    finally:
        await connection.close()


IMPORTS = Subject(
    [
        Figure("import_100k_rss_mb", "MB", baseline="what was imported", at_most=50, and_also="all made"),
        Figure("import_100k_s", "s", baseline="one COPY of the same, without the service"),
    ],
    _imports,
)
"""In one call of ImportTemplates, by the client of `app.client`."""
