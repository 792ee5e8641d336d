"""Many templates in one transaction, as they come in: all of them or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final, Literal, TypeAlias

from app.concurrency.bulkhead import Bulkhead, BulkheadFullError
from app.domain.errors import (
    DeadlineExceededError,
    InvalidInputError,
    OverloadedError,
    RequestIdReusedError,
    StorageUnavailableError,
)
from app.domain.ports import ImportBatch, ImportSummary, Written
from app.domain.write_request import Fingerprint
from app.storage.postgres import Database, PooledConnection
from app.storage.write_requests import Answers, WriteRequests

CHUNK_BYTES: Final = 256 << 10
"""How much one COPY takes. The driver writes up to 512 KiB in one piece, and the longest template is a half of that: so
no COPY waits for anything but the server's answer, and none is open while the caller is waited for. A lost connection
would leave one hanging."""
ROW_BYTES: Final = 10
"""What a row takes besides its texts."""

# Between two messages the transaction is idle, and an import with the same request id may have to be waited for.
_PATIENCE = """
    SELECT set_config('idle_in_transaction_session_timeout', $1, true),
        set_config('statement_timeout', $2, true), set_config('lock_timeout', $2, true)
"""

# The trigger of each insert has put its id there; the table of templates itself has no index by transaction.
_IDS = """
    SELECT coalesce(min(id), 0) AS first_id, coalesce(max(id), 0) AS last_id
    FROM template_changes WHERE xid = pg_current_xact_id()
"""
_ANSWERS: Final = Answers[ImportSummary](to_json=asdict, from_json=lambda kept: ImportSummary(**kept))


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """`concurrent` imports at a time, each with a connection of the pool; more are refused.

    In seconds: `idle_s` is the longest wait for the next batch, `answer_s` that for the database to take one, and
    `total_s` the longest that an import may take in all.
    """

    concurrent: int
    idle_s: float
    answer_s: float
    total_s: float


DEFAULT_LIMITS: Final = ImportLimits(concurrent=4, idle_s=10.0, answer_s=5.5, total_s=600.0)


ImportEnd: TypeAlias = Literal["done", "repeated", "refused", "rejected", "late", "broken_off", "failed"]
"""`refused`: too many at a time. `rejected`: for what it holds. `late`: it, or a message, did not come in time.
`broken_off`: the caller has gone. `failed`: anything else, the database first of all."""


def _ignore(_end: ImportEnd, _imported: int) -> None:
    pass


class TemplateImports:
    """Streams templates into the table by COPY, no faster than the database takes them."""

    def __init__(
        self,
        database: Database,
        requests: WriteRequests,
        limits: ImportLimits,
        on_end: Callable[[ImportEnd, int], None] = _ignore,
    ) -> None:
        """`on_end` is called once for each import, with what became of it and how many templates it made."""
        self._database = database
        self._requests = requests
        self._limits = limits
        self._on_end = on_end
        self._slots = Bulkhead(concurrent=limits.concurrent, queued=0, wait_timeout_s=None)

    @property
    def in_flight(self) -> int:
        """Imports under way."""
        return self._slots.in_use

    async def run(self, batches: AsyncIterator[ImportBatch]) -> Written[ImportSummary]:
        """As `Repository.import_all`."""
        try:
            async with self._slots.slot(None), _Turns(self._limits) as turns:
                written = await self._import(_Intake(batches, turns), turns)
        except BulkheadFullError as error:
            self._on_end("refused", 0)
            text = f"{self._limits.concurrent} imports are under way, as many as may be at a time"
            raise OverloadedError(text=text) from error
        except BaseException as error:
            self._on_end(_end_by(error), 0)
            raise
        if written.is_repeat:
            self._on_end("repeated", 0)
        else:
            self._on_end("done", written.answer.imported)
        return written

    async def _import(self, intake: _Intake, turns: _Turns) -> Written[ImportSummary]:
        await intake.begin()  # no connection is taken for a caller that sends nothing
        request_id = intake.request_id
        earlier = None
        async with self._database.transaction() as connection:
            idle_s, total_s = self._limits.idle_s + self._limits.answer_s, self._limits.total_s
            await connection.fetchrow(_PATIENCE, f"{1000 * idle_s:.0f}ms", f"{1000 * total_s:.0f}ms")
            if request_id is not None:
                turns.anybodys()
                earlier = await self._requests.claim(connection, request_id, total_s)
                turns.databases()
            if earlier is None:
                summary = await self._copy(connection, intake, turns)
                if request_id is not None:
                    await self._requests.record(connection, request_id, intake.fingerprint(), asdict(summary))
                turns.databases()
        if earlier is not None:
            async with aclosing(intake.chunks()) as rest:
                async for _ in rest:
                    pass
            return self._requests.repeated(earlier, intake.fingerprint(), _ANSWERS)
        if request_id is not None:
            self._requests.recorded()
        return Written(summary)

    async def _copy(self, connection: PooledConnection, intake: _Intake, turns: _Turns) -> ImportSummary:
        async with aclosing(intake.chunks()) as chunks:
            async for chunk in chunks:
                turns.databases()
                await connection.copy_records_to_table("templates", columns=["name", "body"], records=chunk)
        turns.databases()
        ids = await connection.fetchrow(_IDS)
        if ids is None:
            raise AssertionError("an aggregate returned no row")
        return ImportSummary(intake.imported, intake.size_bytes, ids["first_id"], ids["last_id"])


def _end_by(error: BaseException) -> ImportEnd:
    match error:
        case asyncio.CancelledError():
            return "broken_off"
        case DeadlineExceededError():
            return "late"
        case InvalidInputError() | RequestIdReusedError():
            return "rejected"
        case _:
            return "failed"


class _Turns:
    """Whose turn it is to go on with an import, and until when: past that it ends, by that one's fault."""

    def __init__(self, limits: ImportLimits) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + limits.total_s
        self._timeout = asyncio.timeout_at(self._ends_at)
        self._is_clients = True

    async def __aenter__(self) -> _Turns:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            if self._loop.time() >= self._ends_at:
                text = f"an import may take {self._limits.total_s:g} s, and this one was not done by then"
                raise DeadlineExceededError(text) from error
            if self._is_clients:
                text = f"the next message of an import must come within {self._limits.idle_s:g} s"
                raise DeadlineExceededError(text) from error
            raise StorageUnavailableError from error

    def clients(self) -> None:
        """The client is to send a message, or to end its stream."""
        self._set(self._limits.idle_s, is_clients=True)

    def databases(self) -> None:
        """The database is to answer."""
        self._set(self._limits.answer_s, is_clients=False)

    def anybodys(self) -> None:
        """Another import is to end."""
        self._set(self._limits.total_s, is_clients=False)

    def _set(self, seconds: float, *, is_clients: bool) -> None:
        if self._timeout.expired():
            return  # the cancellation is on its way
        self._is_clients = is_clients
        self._timeout.reschedule(min(self._ends_at, self._loop.time() + seconds))


class _Intake:
    """What comes in, counted, and hashed where there is a request id."""

    def __init__(self, batches: AsyncIterator[ImportBatch], turns: _Turns) -> None:
        self._batches = batches
        self._turns = turns
        self._batch: ImportBatch | None = None
        self._hash: Fingerprint | None = None
        self.request_id: str | None = None
        self.imported = 0
        self.size_bytes = 0

    async def begin(self) -> None:
        """Waits for the first batch, which has the request id."""
        self._batch = await self._next()
        if self._batch is not None and self._batch.request_id is not None:
            self.request_id = self._batch.request_id
            self._hash = Fingerprint("import")

    async def chunks(self) -> AsyncGenerator[list[tuple[str, str]], None]:
        """Name and body of each, to the end of the stream, as many together as `CHUNK_BYTES` has room for."""
        chunk: list[tuple[str, str]] = []
        room = CHUNK_BYTES
        while self._batch is not None:
            for draft in self._batch.drafts:
                size = len(draft.name.encode()) + len(draft.body.encode())
                if chunk and size + ROW_BYTES > room:
                    yield chunk
                    chunk, room = [], CHUNK_BYTES
                chunk.append((draft.name, draft.body))
                room -= size + ROW_BYTES
                self.imported += 1
                self.size_bytes += size
                if self._hash is not None:
                    self._hash.add(draft.name, draft.body)
            self._batch = await self._next()
        if chunk:
            yield chunk

    def fingerprint(self) -> bytes:
        """Of all that has come in."""
        if self._hash is None:
            raise AssertionError("an import without a request id has no fingerprint")
        return self._hash.digest()

    async def _next(self) -> ImportBatch | None:
        self._turns.clients()
        try:
            batch = await anext(self._batches)
        except StopAsyncIteration:
            batch = None
        self._turns.databases()
        return batch
