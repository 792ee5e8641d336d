"""PostgreSQL's own word on the loads: how many it has carried out, and which are under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import asyncpg

from app.storage.postgres import Connection
from app.storage.templates import LOAD_MARK
from tests.faults.held import HeldLoads

SEEN_TIMEOUT_S = 20.0

# As app.loadtest counts them: only those that ended well are in the statistics.
_LOADS = """
    SELECT coalesce(sum(s.calls), 0)::bigint
    FROM pg_stat_statements AS s
    JOIN pg_roles AS r ON r.oid = s.userid
    JOIN pg_database AS d ON d.oid = s.dbid
    WHERE r.rolname = 'app' AND d.datname = current_database() AND position($1 IN s.query) > 0
"""
_UNDER_WAY = """
    SELECT pid, query_start FROM pg_stat_activity
    WHERE usename = 'app' AND datname = current_database() AND state = 'active' AND position($1 IN query) > 0
"""
_FEEDS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'template-changes'
"""


@dataclass
class Watched:
    """What looking again and again has shown. A load that is shorter than the time between two looks may be missed."""

    most_at_once: int = 0
    distinct: set[tuple[int, str]] = field(default_factory=set)
    looks: int = 0


class FleetDatabase:
    """The superuser's view of the fleet's database. `url` is that superuser's."""

    def __init__(self, connection: Connection, watcher: Connection, url: str) -> None:
        self.connection = connection
        self._watcher = watcher
        self.url = url

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, url: str) -> AsyncIterator[FleetDatabase]:
        first, second = await asyncpg.connect(url), await asyncpg.connect(url)
        try:
            yield cls(first, second, url)
        finally:
            await first.close(timeout=2.0)
            await second.close(timeout=2.0)

    async def loads(self) -> int:
        """Load queries that ended well so far."""
        return int(await self.connection.fetchval(_LOADS, LOAD_MARK))

    async def rewrite(self, key: int, body: str) -> int:
        """Another program's UPDATE; the new version."""
        return int(
            await self.connection.fetchval("UPDATE templates SET body = $2 WHERE id = $1 RETURNING version", key, body)
        )

    async def cut_feeds(self) -> int:
        """Ends the connections on which changes are announced; how many there were."""
        return int(await self.connection.fetchval(_FEEDS))

    async def under_way(self) -> set[int]:
        """The sessions whose loads are being carried out now."""
        return {row["pid"] for row in await self.connection.fetch(_UNDER_WAY, LOAD_MARK)}

    async def until_under_way(self, count: int, *, but: AbstractSet[int] = frozenset()) -> set[int]:
        """Wait until so many loads are being carried out, and none by the sessions in `but`; by which they are."""
        async with asyncio.timeout(SEEN_TIMEOUT_S):
            while len(sessions := await self.under_way()) != count or sessions & but:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        return sessions

    def loads_held(self) -> HeldLoads:
        """No load ends before the `async with` does, or it is told to let go."""
        return HeldLoads(self.url)

    @contextlib.asynccontextmanager
    async def watched(self, every_s: float = 0.01) -> AsyncIterator[Watched]:
        """Looks at the loads under way, until the end of the `async with`."""
        watched = Watched()

        async def look() -> None:
            while True:
                rows = await self._watcher.fetch(_UNDER_WAY, LOAD_MARK)
                watched.looks += 1
                watched.most_at_once = max(watched.most_at_once, len(rows))
                watched.distinct |= {(row["pid"], row["query_start"].isoformat()) for row in rows}
                await asyncio.sleep(every_s)

        task = asyncio.create_task(look())
        try:
            yield watched
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
