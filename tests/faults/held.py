"""Load queries that last until the test lets them go, however long it takes to get there."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import asyncpg

from app.storage.postgres import Connection

HELD: Final = {
    "database_connect_timeout_s": 60,
    "database_acquire_timeout_s": 60,
    "database_statement_timeout_s": 60,
    "load_deadline_s": 60,
    "bulkhead_timeout_s": 60,
    "singleflight_wait_timeout_s": 60,
    "redis_timeout_s": 10,
}
"""Settings with which nothing but its callers ends a load that is held, nor anybody's wait for it.

A wait for a lock gets half of a statement's time.
"""


LOCKED_WITHIN_S: Final = 60.0


class HeldLoads:
    """`async with` it, and each load query waits on the server, there to be seen, until `let_go` or the block's end.

    One that is given up, or whose caller is gone, is cancelled; one that waits so may see what is committed meanwhile.

    It locks the table of templates, from a connection of its own: statistics that are read on another one go on to
    change. `url` is the superuser's. May be used again.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        self._connection = await asyncpg.connect(self._url)
        try:
            await self._connection.execute("BEGIN; LOCK TABLE templates", timeout=LOCKED_WITHIN_S)
        except BaseException:
            self._connection.terminate()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.let_go()

    async def let_go(self) -> None:
        """Let those that wait, and all that follow, go on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.execute("ROLLBACK")
            finally:
                await connection.close(timeout=10.0)
