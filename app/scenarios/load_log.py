"""Which keys PostgreSQL loads, by its own log: its statistics count loads, and don't tell whose they were."""

from __future__ import annotations

import re
from collections import Counter

from app.scenarios.fleet import in_thread
from app.scenarios.stage import Stage
from app.storage.templates import LOAD_MARK

_LOG_STATEMENTS = ("ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()")
# The statement, over several lines, and below it its parameters, of which the key is the first; `DETAIL:  Parameters:`
# since PostgreSQL 17, in small letters before. A server writes each entry at once, so that none is in another.
_LOAD = re.compile(rf"\bAS {LOAD_MARK}\b(?:(?!LOG:).)*?\bparameters: \$1 = '(\d+)'", re.DOTALL | re.IGNORECASE)


class LoadLog:
    """The loads that began since `begin`, by key."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._seen = 0

    async def switch_on(self) -> None:
        """Have all statements logged, shortly after. It is the scenario's own server, and ends with it."""
        database = await self._stage.database()
        try:
            for statement in _LOG_STATEMENTS:
                await database.execute(statement)
        finally:
            database.terminate()

    async def begin(self) -> None:
        """Count from now on."""
        self._seen = len(await self._log())

    async def loads(self) -> Counter[int]:
        """How often each key was loaded; keys that were not are missing."""
        return loads_in((await self._log())[self._seen :])

    async def _log(self) -> str:
        return await in_thread(self._stage.fleet.postgres.log)


def loads_in(log: str) -> Counter[int]:
    """How often each key was loaded, by a stretch of PostgreSQL's log."""
    return Counter(int(key) for key in _LOAD.findall(log))
