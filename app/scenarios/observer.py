"""Looking at a fleet from outside: loads by PostgreSQL's own statistics, states by each replica's metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from app.loadtest.errors import RequestError
from app.loadtest.open_loop import Endpoint
from app.storage.postgres import DRIVER_ERRORS
from app.storage.templates import LOAD_MARK

ANSWER_TIMEOUT_S = 1.0

_LOADS = """
SELECT coalesce(sum(s.calls), 0)::bigint
FROM pg_stat_statements AS s JOIN pg_roles AS r ON r.oid = s.userid
WHERE r.rolname = $1 AND position($2 IN s.query) > 0
"""
# A statement has another start while it is prepared, and another while it is bound: only its sleep is of one load.
_LOADS_NOW = """
SELECT pid, query_start FROM pg_stat_activity
WHERE usename = $1 AND state = 'active' AND wait_event = 'PgSleep' AND position($2 IN query) > 0
"""

Begun = frozenset[tuple[int, datetime]]
"""Loads that run at one moment, each by its backend and its beginning."""


class LoadCount:
    """PostgreSQL's count of the load queries of one role. A server that crashes forgets it, and begins at 0."""

    def __init__(self, url: str, role: str) -> None:
        self._url = url
        self._role = role
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def ended(self) -> int | None:
        """Loads that ended well since the server's statistics began; `None` where it can't be asked."""
        rows = await self._ask(_LOADS)
        return None if rows is None else int(rows[0][0])

    async def under_way(self) -> Begun | None:
        """Loads that are in the delay which their query has; `None` where it can't be asked."""
        rows = await self._ask(_LOADS_NOW)
        return None if rows is None else frozenset((row[0], row[1]) for row in rows)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self, query: str) -> list[asyncpg.Record] | None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._turn:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._url, timeout=ANSWER_TIMEOUT_S)
                return list(await self._connection.fetch(query, self._role, LOAD_MARK))
        except (OSError, *DRIVER_ERRORS):
            # TimeoutError is an OSError; the driver is out of step where a question was cut short before
            self.close()
            return None


async def gauges(endpoint: Endpoint, name: str) -> Mapping[str, float]:
    """A gauge's series at a replica, by its name and labels as they are written; empty where it is silent.

    No other metric is asked for: all of them are some milliseconds' work, for which requests wait.
    """
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            page = await endpoint.page(b"/metrics?name[]=" + name.encode("ascii"))
    except (RequestError, TimeoutError):
        return {}
    found: dict[str, float] = {}
    for line in page.body.decode("utf-8", "replace").splitlines():
        if line and line[0] != "#":
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


async def breakers(endpoints: Sequence[Endpoint]) -> dict[str, int]:
    """The worst state of each breaker over the replicas that answer: 0 closed, 1 half-open, 2 open."""
    seen = await asyncio.gather(*(gauges(endpoint, "breaker_state") for endpoint in endpoints))
    return {
        name: int(max((one.get(f'breaker_state{{name="{name}"}}', 0.0) for one in seen), default=0.0))
        for name in ("redis", "postgres")
    }
