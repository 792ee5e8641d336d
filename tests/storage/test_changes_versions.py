"""The versions that the database gives: per id they rise in the order of commits, whatever happens to the row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from app.domain.errors import InvalidInputError
from app.domain.template import MAX_ID, TemplateDraft
from app.embedded.stack import EmbeddedStack
from app.storage.postgres import Connection, Database
from app.storage.templates import TemplateRepository
from tests.storage.conftest import OpenDatabase, database_name, wait_for

_INSERT = "INSERT INTO templates (id, name, body) VALUES ($1, 'n', '') RETURNING version"
_UPSERT = (
    "INSERT INTO templates (id, name, body) VALUES ($1, 'n', '') ON CONFLICT (id) DO UPDATE SET body = 'upserted' "
    "RETURNING version"
)
_UPDATE = "UPDATE templates SET body = body || '.' WHERE id = $1 RETURNING version"
_DELETE = "DELETE FROM templates WHERE id = $1"
_KNOWN = "SELECT version FROM template_changes WHERE id = $1"
_ALL = "SELECT count(*) FROM templates AS t FULL JOIN template_changes AS c USING (id)"


@pytest.fixture
async def other(url: str) -> AsyncIterator[Connection]:
    """A second writer."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close(timeout=2.0)


async def blocked(admin: Connection, waiter: Connection, call: Awaitable[object]) -> asyncio.Future[object]:
    """The call, begun on `waiter` and now waiting for a lock."""
    pid = waiter.get_server_pid()
    future = asyncio.ensure_future(call)

    async def waits() -> bool:
        return bool(await admin.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid))

    await wait_for(waits)
    assert not future.done()
    return future


async def test_every_template_that_was_there_before_is_known_by_its_version(admin: Connection) -> None:
    assert await admin.fetchval(_ALL + " WHERE id <= 1000") == 1000
    assert await admin.fetchval(_ALL + " WHERE t.version IS DISTINCT FROM c.version AND c.op <> 'D'") == 0


async def test_a_version_goes_on_rising_through_deletion_and_re_creation(writer: Connection) -> None:
    seen = []
    for _ in range(3):
        seen.append(await writer.fetchval(_INSERT, 50_001))
        seen.append(await writer.fetchval(_UPDATE, 50_001))
        await writer.execute(_DELETE, 50_001)
        seen.append(await writer.fetchval(_KNOWN, 50_001))
    assert seen == list(range(1, 10))


async def test_what_a_client_writes_into_version_is_ignored(writer: Connection) -> None:
    insert = "INSERT INTO templates (id, name, body, version) VALUES (50002, 'n', '', $1) RETURNING version"
    assert await writer.fetchval(insert, 700) == 1
    for version in (500, 1, 0, -7):
        before = await writer.fetchval(_KNOWN, 50_002)
        update = "UPDATE templates SET version = $1 WHERE id = 50002 RETURNING version"
        assert await writer.fetchval(update, version) == before + 1
    await writer.execute(_DELETE, 50_002)
    assert await writer.fetchval(insert, 2) == 7


async def test_an_id_cannot_be_changed(writer: Connection) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="the id of a template cannot be changed"):
        await writer.execute("UPDATE templates SET id = 50003 WHERE id = 3")
    assert await writer.fetchval("SELECT count(*) FROM templates WHERE id IN (3, 50003)") == 1
    assert await writer.fetchval(_KNOWN, 50_003) is None
    assert await writer.fetchval("UPDATE templates SET id = id WHERE id = 3 RETURNING version") == 2


async def test_what_is_rolled_back_raises_nothing(writer: Connection) -> None:
    transaction = writer.transaction()
    await transaction.start()
    assert await writer.fetchval(_UPDATE, 4) == 2
    assert await writer.fetchval(_INSERT, 50_004) == 1
    await transaction.rollback()
    assert await writer.fetchval(_KNOWN, 4) == 1
    assert await writer.fetchval(_KNOWN, 50_004) is None
    assert await writer.fetchval(_UPDATE, 4) == 2


async def test_a_savepoint_rolled_back_takes_its_versions_with_it_and_no_others(writer: Connection) -> None:
    async with writer.transaction():
        assert await writer.fetchval(_UPDATE, 5) == 2
        savepoint = writer.transaction()
        await savepoint.start()
        assert await writer.fetchval(_UPDATE, 5) == 3
        await savepoint.rollback()
        async with writer.transaction():
            await writer.execute(_DELETE, 5)
        xid = await writer.fetchval("SELECT pg_current_xact_id()::text")
    row = await writer.fetchrow("SELECT version, xid::text FROM template_changes WHERE id = 5")
    # The transaction's id, not the savepoint's: snapshots know no others.
    assert row is not None
    assert tuple(row) == (3, xid)


async def test_a_re_creation_that_waited_for_the_deletion_comes_after_it(
    writer: Connection, other: Connection, admin: Connection
) -> None:
    """The insert has begun, and taken its snapshot, before the deletion is committed."""
    async with other.transaction():
        await other.execute(_UPDATE, 6)
        await other.execute(_DELETE, 6)
        inserting = await blocked(admin, writer, writer.fetchval(_INSERT, 6))
    assert await inserting == 4
    assert await writer.fetchval(_KNOWN, 6) == 4


async def test_of_two_that_insert_an_unknown_id_one_fails_and_leaves_no_trace(
    writer: Connection, other: Connection, admin: Connection
) -> None:
    """Both have begun before the first is committed."""
    async with other.transaction():
        await other.execute(_INSERT, 50_007)
        inserting = await blocked(admin, writer, writer.fetchval(_INSERT, 50_007))
    with pytest.raises(asyncpg.UniqueViolationError, match="templates_pkey"):
        await inserting
    assert await writer.fetchval(_KNOWN, 50_007) == 1


@pytest.mark.parametrize("commit", [False, True])
async def test_an_insert_that_waited_for_another_continues_where_that_one_ended(
    writer: Connection, other: Connection, admin: Connection, commit: bool
) -> None:
    """The other inserts and deletes; the insert begins meanwhile, and the other commits or rolls back."""
    template_id = 50_010 + commit
    transaction = other.transaction()
    await transaction.start()
    await other.execute(_INSERT, template_id)
    await other.execute(_DELETE, template_id)
    inserting = await blocked(admin, writer, writer.fetchval(_INSERT, template_id))
    await (transaction.commit() if commit else transaction.rollback())
    assert await inserting == (3 if commit else 1)


async def test_updates_that_meet_get_versions_in_the_order_of_their_commits(
    writer: Connection, other: Connection, admin: Connection
) -> None:
    """The one that began first writes first and commits first; the second began before that commit."""
    async with other.transaction():
        assert await other.fetchval(_UPDATE, 8) == 2
        updating = await blocked(admin, writer, writer.fetchval(_UPDATE, 8))
    assert await updating == 3


async def test_a_writer_in_repeatable_read_fails_rather_than_give_a_version_twice(
    writer: Connection, other: Connection
) -> None:
    """Its snapshot is from before the deletion that it writes over."""
    transaction = writer.transaction(isolation="repeatable_read")
    await transaction.start()
    await writer.fetchval("SELECT count(*) FROM templates WHERE id = 9")
    await other.execute(_DELETE, 9)
    with pytest.raises(asyncpg.SerializationError):
        await writer.execute(_INSERT, 9)
    await transaction.rollback()
    assert await other.fetchval(_KNOWN, 9) == 2


@pytest.mark.parametrize("statement", [_UPSERT, _INSERT.replace("RETURNING version", "ON CONFLICT DO NOTHING")])
async def test_an_insert_that_ends_in_on_conflict_gives_the_version_of_what_it_did(
    writer: Connection, statement: str
) -> None:
    before = await writer.fetchval(_KNOWN, 10)
    await writer.execute(statement, 10)
    row = await writer.fetchrow(
        "SELECT t.version, c.version FROM templates t, template_changes c WHERE (t.id, c.id) = (10, 10)"
    )
    raised = before + ("DO UPDATE" in statement)
    assert row is not None
    assert tuple(row) == (raised, raised)


async def test_an_upsert_and_an_update_of_one_id_do_not_deadlock(
    writer: Connection, other: Connection, admin: Connection
) -> None:
    """The update holds the row and has not yet raised the version when the upsert begins: both take the row first."""
    async with other.transaction():
        await other.execute("SELECT FROM templates WHERE id = 11 FOR NO KEY UPDATE")
        upserting = await blocked(admin, writer, writer.fetchval(_UPSERT, 11))
        assert await other.fetchval(_UPDATE, 11) == 2
    assert await upserting == 3


async def test_merge_raises_each_version_once(writer: Connection) -> None:
    await writer.execute(
        """MERGE INTO templates AS t USING (VALUES (12), (13), (50012)) AS new(id) ON t.id = new.id
           WHEN MATCHED AND t.id = 13 THEN DELETE
           WHEN MATCHED THEN UPDATE SET body = 'merged'
           WHEN NOT MATCHED THEN INSERT (id, name, body) VALUES (new.id, 'n', '')"""
    )
    rows = await writer.fetch("SELECT id, version FROM template_changes WHERE id IN (12, 13, 50012) ORDER BY id")
    assert [tuple(row) for row in rows] == [(12, 2), (13, 2), (50012, 1)]


async def test_what_was_written_with_the_triggers_off_is_not_given_a_version_again(
    admin: Connection, writer: Connection
) -> None:
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(
        "INSERT INTO templates (id, name, body, version) VALUES (50020, 'n', '', 40), (50021, '-', '', 7)"
    )
    await admin.execute("SET session_replication_role = origin")
    assert await writer.fetchval(_UPDATE, 50_020) == 41
    await writer.execute(_DELETE, 50_021)
    assert await writer.fetchval(_KNOWN, 50_021) == 8


async def test_writers_at_random_never_get_the_same_version(url: str, open_database: OpenDatabase) -> None:
    """Twelve writers insert, update, upsert and delete three ids, in whatever interleaving: no version is given twice,
    and none is left out."""
    ids = [60_001, 60_002, 60_003]

    async def write(number: int) -> list[tuple[int, int]]:
        connection = await asyncpg.connect(url)
        seen: list[tuple[int, int]] = []
        try:
            for step in range(25):
                template_id = ids[(number + step) % 3]
                statement = (_INSERT, _UPDATE, _UPSERT, _DELETE)[(number * 7 + step * 3) % 4]
                try:
                    async with connection.transaction():
                        changed = await connection.execute(statement, template_id)
                        if changed.endswith(" 0"):
                            continue
                        version = await connection.fetchval(_KNOWN, template_id)
                    seen.append((template_id, version))
                except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
                    continue
        finally:
            await connection.close(timeout=2.0)
        return seen

    seen = [each for one in await asyncio.gather(*(write(number) for number in range(12))) for each in one]
    assert len(seen) > 100
    assert len(set(seen)) == len(seen), "a version was given twice"
    reader = await asyncpg.connect(url)
    try:
        for template_id in ids:
            versions = sorted(version for each, version in seen if each == template_id)
            assert versions == list(range(1, len(versions) + 1))
            assert await reader.fetchval(_KNOWN, template_id) == versions[-1]
    finally:
        await reader.close(timeout=2.0)


async def test_truncate_raises_the_version_of_all_that_was_there(fresh_database: Callable[[], str]) -> None:
    connection = await asyncpg.connect(fresh_database())
    try:
        await connection.execute("DELETE FROM templates WHERE id = 1")
        await connection.execute(_UPDATE, 2)
        async with connection.transaction():
            await connection.execute("TRUNCATE templates")
        rows = await connection.fetch("SELECT id, version, op FROM template_changes WHERE id < 4 ORDER BY id")
        assert [tuple(row) for row in rows] == [(1, 2, b"D"), (2, 3, b"D"), (3, 2, b"D")]
        assert await connection.fetchval("SELECT count(*) FROM template_changes WHERE op = 'D'") == 1000
        assert await connection.fetchval(_INSERT, 2) == 4
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="READ COMMITTED"):
            async with connection.transaction(isolation="repeatable_read"):
                await connection.execute("TRUNCATE templates")
    finally:
        await connection.close(timeout=2.0)


async def test_a_role_that_may_only_write_templates_needs_no_more(
    stack: EmbeddedStack, admin: Connection, url: str
) -> None:
    await admin.execute(
        "CREATE ROLE editor LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON templates TO editor;"
        "GRANT CREATE ON SCHEMA public TO editor"
    )
    editor = stack.postgres.url("editor", database_name(url))
    connection = await asyncpg.connect(editor)
    try:
        # Objects of the writer's own do not come in between.
        await connection.execute(
            "CREATE TEMP TABLE template_changes (id bigint, version bigint, op text, at text, xid text)"
        )
        await connection.execute("SET search_path = pg_temp, public")
        assert await connection.fetchval(_UPDATE.replace("templates", "public.templates"), 14) == 2
        assert await connection.fetchval(_INSERT.replace("templates", "public.templates"), 50_014) == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT count(*) FROM public.template_changes")
    finally:
        await connection.close(timeout=2.0)
        await admin.execute("DROP OWNED BY editor; DROP ROLE editor")


async def test_a_load_tells_the_version_of_the_template_of_its_deletion_or_none(repository: TemplateRepository) -> None:
    created = (await repository.create(TemplateDraft("n", ""))).answer
    assert await repository.load(created.id) == (created, 1)
    updated = (await repository.update(created.id, TemplateDraft("m", ""), None)).answer
    assert await repository.load(created.id) == (updated, 2)
    assert (await repository.delete(created.id, None)).answer == 3
    assert await repository.load(created.id) == (None, 3)
    assert await repository.load(MAX_ID) == (None, 0)
    with pytest.raises(InvalidInputError):
        await repository.load(0)


async def test_a_load_is_one_query_counted_and_delayed_as_get_is(database: Database) -> None:
    counted: list[float] = []
    slow = TemplateRepository(database, 50, counted.append)
    await slow.load(1)
    await slow.load(MAX_ID)
    assert len(counted) == 2
    assert min(counted) >= 0.05


async def test_a_re_created_template_goes_on_where_its_deletion_ended(
    repository: TemplateRepository, writer: Connection
) -> None:
    created = (await repository.create(TemplateDraft("n", ""))).answer
    deleted = (await repository.delete(created.id, frozenset({1}))).answer
    assert await writer.fetchval(_INSERT, created.id) == deleted + 1
    assert (await repository.update(created.id, TemplateDraft("m", ""), frozenset({3}))).answer.version == 4
    assert (await repository.delete(created.id, frozenset({4}))).answer == 5
