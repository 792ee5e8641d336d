"""The backend's schema, kept and renewed, and those that explained what was recorded earlier."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from app.concurrency.clock import Clock, monotonic
from app.concurrency.singleflight import FlightCancelledError, Group, GroupClosedError
from app.concurrency.tasks import TaskSet
from app.loom.schema.errors import SchemaError
from app.loom.schema.schema import Schema

TTL_S: Final = 300.0
"""How long a schema is used before the backend is asked again."""
FAILURE_TTL_S: Final = 10.0
"""How long a failure is remembered: so long nobody asks again."""
CLOSE_TIMEOUT_S: Final = 2.0
MAX_KEPT: Final = 16
"""Most schemas kept by their hash."""

logger = logging.getLogger(__name__)


class SchemaCache:
    """At most one fetch at a time, whoever waits for it. A stale schema is served while it is fetched anew.

    Calls never wait here: `current` tells what is known at once, and sees to it that more is known later.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Schema]],
        *,
        ttl_s: float = TTL_S,
        failure_ttl_s: float = FAILURE_TTL_S,
        clock: Clock = monotonic,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`fetch` raises `SchemaError` where there is none; it has its own deadline."""
        self._fetch = fetch
        self._ttl_s = ttl_s
        self._failure_ttl_s = failure_ttl_s
        self._clock = clock
        self._on_failure = on_failure
        self._flights = Group()
        self._background = TaskSet(limit=1)
        self._kept: OrderedDict[str, Schema] = OrderedDict()
        self._current: Schema | None = None
        self._due = -float("inf")
        """When the next fetch may begin."""
        self._fetched_at = -float("inf")
        self._problem = "not asked for yet"

    @property
    def problem(self) -> str:
        """Why the last fetch brought nothing; empty where it did."""
        return self._problem

    def current(self, method: str | None = None) -> Schema | None:
        """What is known now. Begins a fetch in the background where one is due.

        One is due early where the schema lacks `method`, a path: the backend may have learnt it since.
        """
        known = self._current
        if known is not None and method is not None and known.method(method) is None:
            self._due = min(self._due, self._fetched_at + self._failure_ttl_s)
        if self._clock() >= self._due:
            self._background.start(self._refresh())
        return known

    async def schema(self) -> Schema | None:
        """What is known, or, where nothing is and a fetch is due, what it brings."""
        if self._current is None and self._clock() >= self._due:
            await self._refresh()
        return self.current()

    def keep(self, schema: Schema) -> None:
        """One that was recorded, so that `by_hash` finds it."""
        self._kept[schema.hash] = schema
        self._kept.move_to_end(schema.hash)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def by_hash(self, wanted: str) -> Schema | None:
        """The schema that explained something then, if it is still kept."""
        return self._kept.get(wanted)

    def backend_returned(self) -> None:
        """It may be another version now: the next look fetches anew."""
        self._due = -float("inf")

    async def aclose(self) -> None:
        """No fetch goes on after it."""
        await self._flights.aclose(cancel=True)
        await self._background.aclose(CLOSE_TIMEOUT_S)

    async def _refresh(self) -> None:
        with contextlib.suppress(FlightCancelledError, GroupClosedError):
            await self._flights.do("schema", self._fetched)

    async def _fetched(self) -> None:
        if self._clock() < self._due:
            return  # another flight has landed since this one was decided on
        try:
            schema = await self._fetch()
        except SchemaError as error:
            if str(error) != self._problem:
                logger.warning("no schema from the backend: %s", error)
            self._problem = str(error)
            self._due = self._clock() + self._failure_ttl_s
            self._on_failure()
            return
        self._problem = ""
        self._current = schema
        self.keep(schema)
        self._fetched_at = self._clock()
        self._due = self._fetched_at + self._ttl_s
