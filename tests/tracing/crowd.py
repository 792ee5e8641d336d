"""Callers who all wait on one flight, because its load can't end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from app.storage.templates import LOAD_MARK
from tests.tracing.conftest import Traced, parent

PATIENCE_S = 20.0

_CANCEL = """
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND position($1 IN query) > 0 AND datname = current_database()
"""


@asynccontextmanager
async def held(database_url: str) -> AsyncIterator[None]:
    """Until the end of the body no load can read its table."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE templates")
            yield
    finally:
        await connection.close(timeout=2.0)


async def cancel_load(database_url: str) -> None:
    """Have the server cancel the load that is held, once it is."""
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await connection.fetchval(_CANCEL, LOAD_MARK):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    finally:
        await connection.close(timeout=2.0)


async def ask_together(service: Traced, template_id: int, callers: Sequence[int]) -> list[asyncio.Task[httpx.Response]]:
    """Requests in traces of their own, which all wait on one flight when this returns."""
    asked = [
        asyncio.create_task(service.http.get("/template-details", params={"id": template_id}, headers=parent(caller)))
        for caller in callers
    ]
    async with asyncio.timeout(PATIENCE_S):
        while waiting(service, template_id) < len(callers):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # they come through real connections
    return asked


def waiting(service: Traced, template_id: int) -> int:
    """How many callers wait on the template's flight now."""
    cache: Any = service.served.runtime.service._cache
    flight = cache._loader._protection._protection._flights._group._flights.get(str(template_id))
    return 0 if flight is None else len(flight.waiters)
