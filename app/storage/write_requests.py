"""Writes that are done once, however often they are sent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from app.domain.errors import RequestIdReusedError
from app.domain.ports import Written
from app.domain.write_request import REQUEST_LIFE
from app.storage.postgres import Database, PooledConnection

T = TypeVar("T")
RequestEnd: TypeAlias = Literal["recorded", "repeated", "reused"]

PRUNED_AT_ONCE: Final = 10
"""How many rows past their life each new one takes along: more than one, so that the table shrinks to what it needs."""

# Waits for another transaction that has the id until that one ends. An expired row counts as none. No row comes back
# where the id is taken; then the row that has it is locked, so that it stays.
_CLAIM = """
    INSERT INTO write_requests AS known (request_id) VALUES ($1)
    ON CONFLICT (request_id) DO UPDATE SET fingerprint = NULL, answer = NULL WHERE known.at < now() - $2::interval
    RETURNING true
"""
_FIND = "SELECT fingerprint, answer FROM write_requests WHERE request_id = $1"
_RECORD = "UPDATE write_requests SET fingerprint = $2, answer = $3, at = clock_timestamp() WHERE request_id = $1"
# Rows that another transaction is about to remove or to take over are left to it: nobody waits here.
_PRUNE = """
    DELETE FROM write_requests WHERE request_id IN (
        SELECT request_id FROM write_requests WHERE at < now() - $1::interval
        ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
"""


class Answers(NamedTuple, Generic[T]):
    """How the answers of one kind of write are kept: as JSON, which other releases of this program read."""

    to_json: Callable[[T], Mapping[str, Any]]
    from_json: Callable[[Mapping[str, Any]], T]


class Earlier(NamedTuple):
    """A write that has been done, and carried this id."""

    request_id: str
    fingerprint: bytes
    answer: Mapping[str, Any]


def _ignore(_end: RequestEnd) -> None:
    pass


class WriteRequests:
    """Knows which writes were done already. `on_end` is called once for each write that carried a request id and was
    recorded, repeated, or refused because the id was another write's."""

    def __init__(self, database: Database, on_end: Callable[[RequestEnd], None] = _ignore) -> None:
        self._database = database
        self._on_end = on_end

    async def once(
        self,
        request_id: str,
        fingerprint: bytes,
        write: Callable[[PooledConnection], Awaitable[T]],
        answers: Answers[T],
    ) -> Written[T]:
        """Does the write and records it, in one transaction; or answers as the earlier one with this id was answered.

        Raises as `Database.transaction` does, and `RequestIdReusedError`.
        """
        async with self._database.transaction() as connection:
            earlier = await self.claim(connection, request_id)
            if earlier is None:
                answer = await write(connection)
                await self.record(connection, request_id, fingerprint, answers.to_json(answer))
        if earlier is not None:
            return self.repeated(earlier, fingerprint, answers)
        self.recorded()
        return Written(answer)

    async def claim(
        self, connection: PooledConnection, request_id: str, timeout_s: float | None = None
    ) -> Earlier | None:
        """`None`, and the id is this transaction's; or what was recorded under it, after a wait for who was doing it.

        `timeout_s` bounds that wait where the transaction's own timeouts have been set that long.
        """
        if await connection.fetchval(_CLAIM, request_id, REQUEST_LIFE, timeout=timeout_s):
            return None
        row = await connection.fetchrow(_FIND, request_id)
        if row is None:
            raise AssertionError("a row that is locked was not there")
        return Earlier(request_id, row["fingerprint"], json.loads(row["answer"]))

    async def record(
        self, connection: PooledConnection, request_id: str, fingerprint: bytes, answer: Mapping[str, Any]
    ) -> None:
        """The write of an id that this transaction has claimed is done. Takes a few expired ids out of the table."""
        await connection.execute(_RECORD, request_id, fingerprint, json.dumps(answer))
        await connection.execute(_PRUNE, REQUEST_LIFE, PRUNED_AT_ONCE)

    def recorded(self) -> None:
        """The transaction with the record is committed."""
        self._on_end("recorded")

    def repeated(self, earlier: Earlier, fingerprint: bytes, answers: Answers[T]) -> Written[T]:
        """The earlier write's answer. Raises `RequestIdReusedError` where that was another write."""
        if earlier.fingerprint != fingerprint:
            self._on_end("reused")
            raise RequestIdReusedError(earlier.request_id)
        self._on_end("repeated")
        return Written(answers.from_json(earlier.answer), is_repeat=True)
