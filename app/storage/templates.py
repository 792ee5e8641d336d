"""Templates in PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, TypeVar

import asyncpg

from app.domain.errors import StorageUnavailableError, TemplateNotFoundError, VersionMismatchError
from app.domain.ports import ImportBatch, ImportSummary, Written
from app.domain.template import MAX_ID, Template, TemplateDraft, TemplatePatch, check_id
from app.domain.write_request import Fingerprint
from app.storage.imports import DEFAULT_LIMITS, ImportEnd, ImportLimits, TemplateImports
from app.storage.postgres import DRIVER_ERRORS, Database, PooledConnection
from app.storage.write_requests import Answers, RequestEnd, WriteRequests

T = TypeVar("T")
logger = logging.getLogger(__name__)

LOAD_MARK: Final = "template_load"
"""Stands in the load query's text and in no other, so that `pg_stat_statements` can be asked how often it ran."""

# One row always comes, and only after the delay, whether or not there is such a template. The snapshot is the
# statement's and so older than the delay, as that of a slow query is; the template and the id's version are of one.
_LOAD = """
    SELECT t.id, t.name, t.body, t.version, t.updated_at, greatest(c.version, t.version, 0) AS known_version
    FROM pg_sleep($2) AS template_load
        LEFT JOIN templates AS t ON t.id = $1
        LEFT JOIN template_changes AS c ON c.id = $1
"""

# PostgreSQL before 18 counts statements as one that differ in an alias only: this one has a limit besides.
_WARM_UP = f"{_LOAD.replace(LOAD_MARK, 'warm_up')} LIMIT 1"
WARM_UP_TIMEOUT_S: Final = 1.0

_CREATE = "INSERT INTO templates (name, body) VALUES ($1, $2) RETURNING id, name, body, version, updated_at"

# Triggers raise the version. Locking the row first makes `previous` the last committed one, whatever the statement's
# snapshot says. No row: not found. A row without an id: its version is none of the expected ones.
_UPDATE = """
    WITH current AS (
        SELECT id, version FROM templates WHERE id = $1 FOR NO KEY UPDATE
    ), written AS (
        UPDATE templates AS t
        SET name = coalesce($2, t.name), body = coalesce($3, t.body),
            updated_at = greatest(clock_timestamp(), t.updated_at + interval '1 microsecond')
        FROM current
        WHERE t.id = current.id AND ($4::bigint[] IS NULL OR current.version = ANY ($4))
        RETURNING t.id, t.name, t.body, t.version, t.updated_at
    )
    SELECT current.version AS previous, written.* FROM current LEFT JOIN written ON true
"""

_DELETE = """
    WITH current AS (
        SELECT id, version FROM templates WHERE id = $1 FOR UPDATE
    ), deleted AS (
        DELETE FROM templates AS t
        USING current
        WHERE t.id = current.id AND ($2::bigint[] IS NULL OR current.version = ANY ($2))
        RETURNING t.id
    )
    SELECT current.version AS previous, deleted.id FROM current LEFT JOIN deleted ON true
"""

_PAGE = "SELECT id, name, body, version, updated_at FROM templates WHERE id > $1 ORDER BY id LIMIT $2"


TEMPLATE_ANSWERS: Final = Answers[Template](
    to_json=lambda template: {
        "id": template.id,
        "name": template.name,
        "body": template.body,
        "version": template.version,
        "updated_at": template.updated_at.isoformat(),
    },
    from_json=lambda kept: Template(**{**kept, "updated_at": datetime.fromisoformat(kept["updated_at"])}),
)
VERSION_ANSWERS: Final = Answers[int](
    to_json=lambda version: {"version": version}, from_json=lambda kept: kept["version"]
)


def _ignore(*_what: object) -> None:
    pass


class TemplateRepository:
    """The domain's `Repository` over PostgreSQL.

    Every method raises `StorageUnavailableError` where the database cannot be reached or does not answer in time, and
    `InvalidInputError` for an id that no template can have.
    """

    def __init__(
        self,
        database: Database,
        load_delay_ms: int = 0,
        on_load: Callable[[float], None] = _ignore,
        *,
        import_limits: ImportLimits = DEFAULT_LIMITS,
        on_request: Callable[[RequestEnd], None] = _ignore,
        on_import: Callable[[ImportEnd, int], None] = _ignore,
    ) -> None:
        """`load_delay_ms` makes each load query as slow as a heavy one; it counts towards the statement timeout.

        `on_load` is called once for each load query that the database answered, found or not, with its seconds;
        `on_request` once for each write that carried a request id and did not fail, with what became of it;
        `on_import` once for each import, with what became of it and how many templates it made.
        """
        self._database = database
        self._requests = WriteRequests(database, on_request)
        self._imports = TemplateImports(database, self._requests, import_limits, on_import)
        self.load_delay_s = load_delay_ms / 1000
        """May be changed while loads are under way: those that begin from then on have it."""
        self._on_load = on_load

    @property
    def imports_in_flight(self) -> int:
        """Imports under way."""
        return self._imports.in_flight

    async def get(self, template_id: int) -> Template:
        """One load query. Raises `TemplateNotFoundError`."""
        template, _ = await self.load(template_id)
        if template is None:
            raise TemplateNotFoundError(template_id)
        return template

    async def load(self, template_id: int) -> tuple[Template | None, int]:
        """The template, or `None` where there is none, and the id's version, by one load query.

        The version is the template's own; without a template that of its deletion, or 0 where the id never was.
        """
        check_id(template_id)

        async def load(connection: PooledConnection) -> asyncpg.Record | None:
            started = time.perf_counter()
            row = await connection.fetchrow(_LOAD, template_id, self.load_delay_s)
            self._on_load(time.perf_counter() - started)
            return row

        row = await self._database.read(load)
        if row is None:
            raise AssertionError("the load query returned no row")
        version: int = row["known_version"]
        return (None if row["id"] is None else _template(row)), version

    async def warm_up(self, connections: int) -> None:
        """Have so many idle connections read what PostgreSQL needs to know for a load: a first one takes four times as
        long without. It counts as no load. Where the database can't do it within `WARM_UP_TIMEOUT_S`, they stay as they
        are."""

        async def read(connection: PooledConnection) -> None:
            await connection.execute(_WARM_UP, 0, 0.0)

        async def warm() -> None:
            try:
                async with asyncio.timeout(WARM_UP_TIMEOUT_S):
                    await self._database.read(read)
            except (StorageUnavailableError, *DRIVER_ERRORS, TimeoutError) as error:
                logger.info("a connection to PostgreSQL was not warmed up: %s", str(error) or type(error).__name__)

        async with asyncio.TaskGroup() as warming:
            for _ in range(connections):
                warming.create_task(warm())

    async def create(self, draft: TemplateDraft, request_id: str | None = None) -> Written[Template]:
        async def write(connection: PooledConnection) -> Template:
            row = await connection.fetchrow(_CREATE, draft.name, draft.body)
            if row is None:
                raise AssertionError("INSERT … RETURNING returned no row")
            return _template(row)

        return await self._write(request_id, ("create", draft.name, draft.body), write, TEMPLATE_ANSWERS)

    async def update(
        self, template_id: int, patch: TemplatePatch, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[Template]:
        """Of several writers that expect the same version, exactly one wins. `updated_at` always rises."""
        check_id(template_id)

        async def write(connection: PooledConnection) -> Template:
            row = await connection.fetchrow(_UPDATE, template_id, patch.name, patch.body, _versions(expected))
            return _template(_written(row, template_id))

        about = ("update", template_id, patch.name, patch.body, *_parts(expected))
        return await self._write(request_id, about, write, TEMPLATE_ANSWERS)

    async def delete(
        self, template_id: int, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[int]:
        check_id(template_id)

        async def write(connection: PooledConnection) -> int:
            row = await connection.fetchrow(_DELETE, template_id, _versions(expected))
            previous: int = _written(row, template_id)["previous"]
            return previous + 1

        return await self._write(request_id, ("delete", template_id, *_parts(expected)), write, VERSION_ANSWERS)

    async def import_all(self, batches: AsyncIterator[ImportBatch]) -> Written[ImportSummary]:
        return await self._imports.run(batches)

    async def page(self, after_id: int, limit: int) -> Sequence[Template]:
        if after_id >= MAX_ID or limit < 1:
            return []
        first = max(after_id, 0)
        most = min(limit, MAX_ID)
        rows = await self._database.read(lambda connection: connection.fetch(_PAGE, first, most))
        return [_template(row) for row in rows]

    async def _write(
        self,
        request_id: str | None,
        about: tuple[str | int | None, ...],
        write: Callable[[PooledConnection], Awaitable[T]],
        answers: Answers[T],
    ) -> Written[T]:
        """`about` is what makes it this write and no other: its kind and its content."""
        if request_id is not None:
            return await self._requests.once(request_id, Fingerprint(*about).digest(), write, answers)
        async with self._database.connection() as connection:
            return Written(await write(connection))


def _written(row: asyncpg.Record | None, template_id: int) -> asyncpg.Record:
    if row is None:
        raise TemplateNotFoundError(template_id)
    if row["id"] is None:
        raise VersionMismatchError(template_id, row["previous"])
    return row


def _versions(expected: frozenset[int] | None) -> list[int] | None:
    """Those that a bigint can hold; no other can be the current one."""
    return None if expected is None else [version for version in expected if 1 <= version <= MAX_ID]


def _parts(expected: Iterable[int] | None) -> list[int | None]:
    """For a fingerprint: no expectation is another one than none that can be met."""
    return [None] if expected is None else [*sorted(expected)]


def _template(row: asyncpg.Record) -> Template:
    return Template(row["id"], row["name"], row["body"], row["version"], row["updated_at"])
