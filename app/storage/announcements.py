"""One connection that listens for announcements of changes, and the questions that are asked over it.

A commit becomes visible before its announcement arrives. So whoever is to know that all which a snapshot shows has been
announced must ask for more than the snapshot: here each question also notifies this connection itself. Notifications
are delivered in the order of commits, so when that one is back, all that the snapshot shows has been delivered.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from app.concurrency.fair_timeout import FairTimeout
from app.storage.change import Change, parse_announcement
from app.storage.postgres import Connection, ConnectionLostError

logger = logging.getLogger(__name__)

CHANNEL: Final = "template_changes"
LOOK_IN_TABLE: Final = "*"
FLUSH: Final = "flush"
"""Sent by who measures: nothing has changed, but everybody is to begin with nothing in hand."""

# A crash takes back transaction ids whose WAL was not flushed, and gives them again: to changes that a snapshot from
# before the crash would seem to show. So what is asked commits, after its snapshot was taken, with a record in the WAL,
# without which PostgreSQL flushes nothing, and not asynchronously: that flushes all ids below the snapshot's end. A
# standby need not have it: one that is promoted has another timeline.
# The plan must know the snapshot, or it would read the whole table.
_GREETING = """
    SELECT set_config('synchronous_commit', 'local', false),
        set_config('plan_cache_mode', 'force_custom_plan', false),
        concat_ws('/',
            (SELECT system_identifier FROM pg_control_system()),
            left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
            (SELECT oid FROM pg_database WHERE datname = current_database()),
            'public.template_changes'::regclass::oid
        ) AS history
"""
_BEAT = """
    SELECT pg_current_snapshot()::text AS snapshot, pg_notify($1, $2), pg_logical_emit_message(true, $1, '')
"""
_SINCE = """
    SELECT pg_current_snapshot()::text AS snapshot, pg_notify($1, $2), pg_logical_emit_message(true, $1, ''),
        ids, versions,
        pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax($3::text::pg_snapshot) AS went_back
    FROM (
        SELECT array_agg(id) AS ids, array_agg(version) AS versions
        FROM (
            SELECT id, version FROM public.template_changes
            WHERE xid >= pg_snapshot_xmin($3::text::pg_snapshot)
                AND NOT pg_visible_in_snapshot(xid, $3::text::pg_snapshot)
            LIMIT $4
        ) AS committed_since
    ) AS found
"""


@dataclass(frozen=True, slots=True)
class Position:
    """A point in the database's history: what `snapshot` (of type `pg_snapshot`) shows.

    `history` names the server's data, its timeline, the database and the table: in another one snapshots and versions
    mean nothing.
    """

    history: str
    snapshot: str

    def __str__(self) -> str:
        return f"{self.history} {self.snapshot}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """The position that `str` wrote; `None` for anything else."""
        history, space, snapshot = text.rpartition(" ")
        return cls(history, snapshot) if space and re.fullmatch(r"\d+:\d+:[\d,]*", snapshot) else None


@dataclass(frozen=True, slots=True)
class Found:
    """Ids and versions of what was committed since a position, or `None` where that cannot be told, and the position
    up to which that is all."""

    position: Position
    rows: Sequence[tuple[int, int]] | None


class Announcements:
    """Announcements over one connection, which is its own.

    `on_changes` is called, on the event loop, for each announcement that says what changed, and `on_flush` for each
    that asks to begin with nothing in hand. Every method raises as the driver does, and `TimeoutError` where the server
    does not answer within `answer_timeout_s`.
    """

    def __init__(
        self,
        connection: Connection,
        on_changes: Callable[[Sequence[Change]], None],
        on_flush: Callable[[], None],
        answer_timeout_s: float,
    ) -> None:
        self._connection = connection
        self._answer_timeout_s = answer_timeout_s
        self._on_changes = on_changes
        self._on_flush = on_flush
        self._own_channel = f"template_feed_{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._delivered = asyncio.Event()
        self._awaited = ""
        self._woken = asyncio.Event()
        self._ended = False
        self._history = ""
        self.must_look = False
        """An announcement came that does not say what changed, and nobody has looked since: see `since`."""

    async def open(self) -> None:
        """Listens from now on."""
        connection = self._connection
        connection.add_termination_listener(self._end)
        async with FairTimeout(self._answer_timeout_s):
            # The driver drops what comes between the server's start of listening and its own: only what is asked
            # after this point can be relied on.
            await connection.add_listener(CHANNEL, self._hear)
            await connection.add_listener(self._own_channel, self._hear_own)
            self._history = str((await self._row(_GREETING))["history"])

    async def wait(self, timeout_s: float) -> None:
        """Until there is reason to look, or the connection is lost, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            pass
        if self._ended:
            raise ConnectionLostError

    async def beat(self) -> Position:
        """Where the database is. All that it shows there has been announced, to `on_changes` or by `must_look`."""
        row = await self._ask(self._answer_timeout_s, _BEAT)
        return Position(self._history, row["snapshot"])

    async def since(self, position: Position, most: int, timeout_s: float) -> Found:
        """What was committed after `position`, or `None` where it is more than `most`, or in another history.

        The answer may take `timeout_s`.
        """
        if position.history != self._history:
            return Found(await self.beat(), None)
        self.must_look = False
        self._woken.clear()
        row = await self._ask(timeout_s, _SINCE, position.snapshot, most + 1)
        here = Position(self._history, row["snapshot"])
        ids, versions = row["ids"] or (), row["versions"] or ()
        if row["went_back"] or len(ids) > most:
            return Found(here, None)
        return Found(here, list(zip(ids, versions, strict=True)))

    async def _ask(self, timeout_s: float, query: str, *arguments: object) -> asyncpg.Record:
        self._awaited = str(next(self._numbers))
        self._delivered.clear()
        async with FairTimeout(timeout_s):
            row = await self._row(query, self._own_channel, self._awaited, *arguments)
        async with FairTimeout(self._answer_timeout_s):
            await self._delivered.wait()
        if self._ended:
            raise ConnectionLostError
        return row

    async def _row(self, query: str, *arguments: object) -> asyncpg.Record:
        row = await self._connection.fetchrow(query, *arguments)
        if row is None:
            raise AssertionError("a query for one row returned none")
        return row

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        changes = parse_announcement(str(payload))
        if changes is not None:
            self._on_changes(changes)
            return
        if payload == FLUSH:
            self._on_flush()
            return
        if payload != LOOK_IN_TABLE:
            logger.warning("an announcement that cannot be read, so all changes are looked for: %.100r", payload)
        self.must_look = True
        self._woken.set()

    def _hear_own(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == self._awaited:
            self._delivered.set()

    def _end(self, _connection: object) -> None:
        self._ended = True
        self._woken.set()
        self._delivered.set()
