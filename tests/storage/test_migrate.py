from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from app.domain.errors import StorageUnavailableError
from app.embedded.stack import EmbeddedStack
from app.storage.errors import DatabaseUnreachableError, MigrationError
from app.storage.migrate import _LOCK_KEY, MIGRATIONS, migrate, read_migrations
from app.storage.postgres import Connection
from tests.storage.conftest import database_name, wait_for
from tests.storage.relay import free_port


@pytest.fixture
def url(empty_database: Callable[[], str]) -> str:
    """A database without any migration."""
    return empty_database()


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close(timeout=2.0)


def write(directory: Path, **scripts: str) -> Path:
    """Files named by the keys, with a leading n that Python's names need cut off."""
    for name, sql in scripts.items():
        (directory / f"{name.removeprefix('n')}.sql").write_text(sql)
    return directory


async def recorded(connection: Connection) -> list[str]:
    return [row["name"] for row in await connection.fetch("SELECT name FROM schema_migrations ORDER BY name")]


async def exists(connection: Connection, table: str) -> bool:
    return await connection.fetchval("SELECT to_regclass($1)", table) is not None


async def test_a_fresh_database_gets_all_of_them_and_the_next_run_does_nothing(
    url: str, connection: Connection
) -> None:
    names = [migration.name for migration in read_migrations(MIGRATIONS)]
    assert names[0] == "001_init.sql"
    assert await migrate(url) == names
    assert await migrate(url) == []
    assert await recorded(connection) == names


async def test_eight_that_start_together_apply_each_exactly_once(url: str, connection: Connection) -> None:
    applied = await asyncio.gather(*(migrate(url) for _ in range(8)))
    names = [migration.name for migration in read_migrations(MIGRATIONS)]
    assert [name for names in applied for name in names] == names
    assert sorted(applied, key=len)[:-1] == [[]] * 7
    assert await connection.fetchval("SELECT count(*) FROM templates") == 1000


async def test_only_what_is_new_is_applied(url: str, connection: Connection, tmp_path: Path) -> None:
    write(tmp_path, n001_one="CREATE TABLE one ()")
    assert await migrate(url, tmp_path) == ["001_one.sql"]
    write(tmp_path, n002_two="CREATE TABLE two ()", n003_three="CREATE TABLE three ()")
    assert await migrate(url, tmp_path) == ["002_two.sql", "003_three.sql"]
    assert await exists(connection, "three")


async def test_a_failing_one_leaves_nothing_and_says_file_line_and_reason(
    url: str, connection: Connection, tmp_path: Path
) -> None:
    write(
        tmp_path, n001_good="CREATE TABLE good ()", n002_bad="CREATE TABLE bad ();\nINSERT INTO good\n  VALUES (nope);"
    )
    with pytest.raises(MigrationError) as raised:
        await migrate(url, tmp_path)
    assert str(raised.value) == '002_bad.sql, line 3: column "nope" does not exist'
    assert await recorded(connection) == ["001_good.sql"]
    assert not await exists(connection, "bad")
    write(tmp_path, n002_bad="CREATE TABLE bad ()")
    assert await migrate(url, tmp_path) == ["002_bad.sql"]


async def test_an_error_without_a_position_names_the_file(url: str, tmp_path: Path) -> None:
    write(tmp_path, n001_zero="DO $$ BEGIN RAISE 'not today'; END $$")
    with pytest.raises(MigrationError, match=r"^001_zero\.sql: not today$"):
        await migrate(url, tmp_path)


async def test_a_script_may_not_end_its_transaction(url: str, connection: Connection, tmp_path: Path) -> None:
    write(tmp_path, n001_commits="CREATE TABLE one (); COMMIT; CREATE TABLE two ()")
    with pytest.raises(MigrationError, match=r"^001_commits\.sql ends the transaction that it runs in"):
        await migrate(url, tmp_path)
    assert await recorded(connection) == []


async def test_a_file_changed_after_it_was_applied_is_refused(url: str, tmp_path: Path) -> None:
    await migrate(url, write(tmp_path, n001_one="CREATE TABLE one ()"))
    with pytest.raises(MigrationError, match=r"^001_one\.sql has changed since"):
        await migrate(url, write(tmp_path, n001_one="CREATE TABLE one (id int)"))


async def test_a_file_that_vanished_after_it_was_applied_is_refused(url: str, tmp_path: Path) -> None:
    await migrate(url, write(tmp_path, n001_one="SELECT 1", n002_two="SELECT 2"))
    (tmp_path / "002_two.sql").unlink()
    with pytest.raises(MigrationError, match=r"^002_two\.sql was applied .* no such file$"):
        await migrate(url, tmp_path)


async def test_a_record_with_a_hole_is_refused(url: str, connection: Connection, tmp_path: Path) -> None:
    await migrate(url, write(tmp_path, n001_one="SELECT 1", n002_two="SELECT 2"))
    await connection.execute("DELETE FROM schema_migrations WHERE name = '001_one.sql'")
    with pytest.raises(MigrationError, match="schema_migrations lacks a migration"):
        await migrate(url, tmp_path)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "there are no migrations in "),
        (["001_a.sql", "003_c.sql"], r"003_c\.sql: there is no migration 002 before it"),
        (["002_b.sql"], r"002_b\.sql: there is no migration 001 before it"),
        (["001_a.sql", "001_b.sql"], r"001_b\.sql has the same number as 001_a\.sql"),
        (["000_a.sql"], r"000_a\.sql: numbers start at 001"),
        (["1_a.sql"], r"1_a\.sql: a migration's file must be named like"),
        (["001_a.sql", "002-b.sql"], r"002-b\.sql: a migration's file must be named like"),
        (["001_a.sql", "002_b.sql.orig"], r"002_b\.sql\.orig: a migration's file must be named like"),
        (["001_a.sql", "notes.txt"], r"notes\.txt: a migration's file must be named like"),
        (["001_a.sql\n"], "a migration's file must be named like"),
    ],
)
def test_a_folder_that_is_not_in_order_is_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match=complaint):
        read_migrations(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="cannot be read"):
        read_migrations(tmp_path / "nowhere")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "001_latin.sql").write_bytes("SELECT 'é'".encode("latin-1"))
    with pytest.raises(MigrationError, match=r"001_latin\.sql is not UTF-8"):
        read_migrations(tmp_path)


def test_folders_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, n001_one="SELECT 1")
    (tmp_path / "bootstrap").mkdir()
    (tmp_path / "bootstrap" / "roles.sql").write_text("SELECT 2")
    (tmp_path / ".DS_Store").write_bytes(b"\xff")
    assert [migration.name for migration in read_migrations(tmp_path)] == ["001_one.sql"]


async def test_one_that_migrates_too_long_is_not_waited_for(url: str, connection: Connection, tmp_path: Path) -> None:
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
    with pytest.raises(MigrationError, match=r"another process has been migrating for more than 0\.1 s"):
        await migrate(url, write(tmp_path, n001_one="CREATE TABLE one ()"), lock_timeout_s=0.1)
    assert not await exists(connection, "schema_migrations")


async def test_a_migrator_whose_connection_ends_leaves_nothing_and_the_next_one_goes_on(
    url: str, connection: Connection, tmp_path: Path
) -> None:
    write(tmp_path, n001_slow="CREATE TABLE slow (); SELECT pg_sleep(30)")
    running = asyncio.create_task(migrate(url, tmp_path))

    async def ended() -> bool:
        ended = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'migrate' AND wait_event = 'PgSleep'"
        )
        return bool(ended)

    await wait_for(ended)
    with pytest.raises(StorageUnavailableError):
        await running
    assert await recorded(connection) == []
    assert not await exists(connection, "slow")
    write(tmp_path, n001_slow="CREATE TABLE slow ()")
    assert await migrate(url, tmp_path) == ["001_slow.sql"]


async def test_what_it_makes_belongs_to_the_databases_owner_whoever_migrates(
    stack: EmbeddedStack, url: str, connection: Connection
) -> None:
    await migrate(stack.postgres.url("unprotected", database_name(url)))
    owners = await connection.fetch("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert [row["tableowner"] for row in owners] == ["app"]


async def test_a_database_that_is_not_there_yet_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(DatabaseUnreachableError, match=f"127.0.0.1:{port}/app cannot be reached, tried for 0.2 s"):
        await migrate(
            f"postgresql://app@127.0.0.1:{port}/app", write(tmp_path, n001_one="SELECT 1"), start_timeout_s=0.2
        )
