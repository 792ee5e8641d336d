"""Opening the pool, its deadlines and bounds, and which of the driver's errors is an outage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import asyncpg
import pytest

from app.domain.errors import StorageUnavailableError
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.stack import EmbeddedStack
from app.storage.errors import DatabaseUnreachableError, StorageConfigurationError
from app.storage.postgres import Connection, ConnectionLostError, Database
from tests.storage.conftest import SETTINGS, OpenDatabase, database_name, wait_for
from tests.storage.relay import Relay, free_port


def through(relay: Relay, stack: EmbeddedStack, url: str) -> str:
    return url.replace(f":{stack.postgres.port}/", f":{relay.port}/")


def require_passwords(postgres: EmbeddedPostgres) -> None:
    """Of all roles but the superuser."""
    lines = "('host all postgres 127.0.0.1/32 trust'), ('host all all 127.0.0.1/32 scram-sha-256')"
    postgres.sql(f"COPY (VALUES {lines}) TO PROGRAM 'cat > pg_hba.conf'; SELECT pg_reload_conf()")


async def test_it_waits_at_start_for_a_database_that_comes_later(
    stack: EmbeddedStack, url: str, open_database: OpenDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.storage.postgres")
    relay = Relay(stack.postgres.port)
    opening = asyncio.ensure_future(open_database(through(relay, stack, url)))

    async def has_failed_once() -> bool:
        return "waiting for PostgreSQL" in caplog.text

    await wait_for(has_failed_once)
    assert not opening.done()
    async with relay:
        await (await opening).ping()


@pytest.mark.parametrize("pool_min", [0, 2])
async def test_a_database_that_cannot_be_reached_is_given_up_in_time(
    open_database: OpenDatabase, pool_min: int
) -> None:
    port = free_port()
    async with asyncio.timeout(2):
        with pytest.raises(DatabaseUnreachableError) as raised:
            await open_database(f"postgresql://app:secret@127.0.0.1:{port}/app", pool_min=pool_min, start_timeout_s=0.3)
    assert f"127.0.0.1:{port}/app cannot be reached, tried for 0.3 s: " in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time(
    stack: EmbeddedStack, url: str, open_database: OpenDatabase
) -> None:
    async with Relay(stack.postgres.port) as relay, asyncio.timeout(3):
        relay.stall()
        with pytest.raises(DatabaseUnreachableError, match="no answer in time"):
            await open_database(through(relay, stack, url), connect_timeout_s=0.2, start_timeout_s=0.5)


async def test_a_server_that_is_no_postgres_is_given_up_in_time(
    stack: EmbeddedStack, open_database: OpenDatabase
) -> None:
    async with asyncio.timeout(3):
        with pytest.raises(DatabaseUnreachableError):
            await open_database(f"postgresql://app@127.0.0.1:{stack.redis.port}/app", start_timeout_s=0.5)


@pytest.mark.parametrize(
    ("role", "database", "complaint"),
    [
        ("nobody_here", "app", 'role "nobody_here" does not exist'),
        ("app", "nothing_here", 'database "nothing_here" does not exist'),
    ],
)
async def test_a_wrong_role_or_database_is_refused_at_once(
    stack: EmbeddedStack, open_database: OpenDatabase, role: str, database: str, complaint: str
) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(StorageConfigurationError, match=complaint):
            await open_database(stack.postgres.url(role, database), start_timeout_s=30)


async def test_a_wrong_password_is_refused_at_once_and_not_repeated(
    own_postgres: Callable[..., EmbeddedPostgres], open_database: OpenDatabase
) -> None:
    postgres = own_postgres()
    postgres.sql("ALTER ROLE app PASSWORD 'right'")
    require_passwords(postgres)
    url = postgres.url("app")
    await (await open_database(url.replace("app@", "app:right@"))).ping()
    async with asyncio.timeout(2):
        with pytest.raises(StorageConfigurationError, match="password authentication failed") as raised:
            await open_database(url.replace("app@", "app:secret@"), start_timeout_s=30)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "bad_url",
    [
        "postgresql://app:se/cret@127.0.0.1:5432/app",
        "postgresql://app:[secret@127.0.0.1:5432/app",
        "postgresql://app:secret@127.0.0.1:port/app",
        "mysql://app:secret@127.0.0.1:5432/app",
        "postgresql://app:secret@127.0.0.1:5432/app?sslmode=perhaps",
    ],
)
async def test_a_malformed_url_is_refused_without_a_piece_of_the_password(
    open_database: OpenDatabase, bad_url: str
) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(StorageConfigurationError) as raised:
            await open_database(bad_url, start_timeout_s=30)
    assert "\n" not in str(raised.value)
    assert "cret" not in str(raised.value)
    assert "'se'" not in str(raised.value)


async def test_sessions_carry_their_name_and_deadlines(url: str, open_database: OpenDatabase) -> None:
    database = await open_database(url, statement_timeout_s=1.5)
    names = ["application_name", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    async with database.connection() as connection:
        values = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    assert values == ["tests", "1500ms", "750ms", "1500ms"]


async def test_the_pool_grows_to_its_bound_and_no_further(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    database = await open_database(url, pool_min=2, pool_max=3, application_name="bounded")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bounded'"
    assert await admin.fetchval(sessions) == 2
    await asyncio.gather(*(database.read(lambda c: c.execute("SELECT pg_sleep(0.01)")) for _ in range(20)))
    assert await admin.fetchval(sessions) == 3


async def test_no_free_connection_in_time_is_an_outage(url: str, open_database: OpenDatabase) -> None:
    database = await open_database(url, pool_max=1, acquire_timeout_s=0.1)
    async with database.connection():
        with pytest.raises(StorageUnavailableError) as raised:
            await database.ping()
    assert isinstance(raised.value.__cause__, TimeoutError)
    await database.ping()


async def test_no_room_on_the_server_is_an_outage(
    url: str, stack: EmbeddedStack, fresh_database: Callable[[], str], open_database: OpenDatabase
) -> None:
    url = fresh_database()
    database = await open_database(url, pool_min=0)
    stack.postgres.sql(f"ALTER DATABASE {database_name(url)} CONNECTION LIMIT 1", database="postgres")
    async with database.connection():
        with pytest.raises(StorageUnavailableError) as raised:
            await database.ping()
    assert isinstance(raised.value.__cause__, asyncpg.TooManyConnectionsError)
    await database.ping()
    with pytest.raises(DatabaseUnreachableError, match="too many connections"):
        async with database.connection():
            await open_database(url, start_timeout_s=1.4)  # tries after 0.75 s, and no more


async def test_a_statement_that_takes_too_long_is_an_outage_and_its_connection_stays(
    url: str, open_database: OpenDatabase
) -> None:
    database = await open_database(url, pool_max=1, statement_timeout_s=1.0)
    pid = await database.read(lambda c: c.fetchval("SELECT pg_backend_pid()"))
    with pytest.raises(StorageUnavailableError) as raised:
        await database.read(lambda c: c.execute("SELECT pg_sleep(10)"))
    assert isinstance(raised.value.__cause__, asyncpg.QueryCanceledError)
    assert await database.read(lambda c: c.fetchval("SELECT pg_backend_pid()")) == pid


async def test_a_lock_that_is_not_had_in_time_is_an_outage(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    database = await open_database(url, statement_timeout_s=1.0)
    async with admin.transaction():
        await admin.execute("LOCK TABLE templates")
        with pytest.raises(StorageUnavailableError) as raised:
            await database.read(lambda c: c.execute("SELECT 1 FROM templates LIMIT 1"))
    assert isinstance(raised.value.__cause__, asyncpg.LockNotAvailableError)


async def test_a_connection_that_the_server_ends_in_mid_statement_is_an_outage(
    database: Database, admin: Connection
) -> None:
    with pytest.raises(ConnectionLostError) as raised:
        async with database.connection() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert isinstance(raised.value.__cause__, asyncpg.PostgresError)
    await database.ping()


async def test_a_connection_that_the_server_ended_between_two_statements_is_an_outage(
    database: Database, admin: Connection
) -> None:
    """The driver has noticed the end before the second statement, and complains of a connection released too early."""
    with pytest.raises(ConnectionLostError):  # noqa: PT012
        async with database.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await admin.execute("SELECT pg_terminate_backend($1, 2000)", pid)
            await asyncio.sleep(0.05)
            await connection.execute("SELECT 1")
    await database.ping()


@pytest.mark.parametrize(
    ("statement", "arguments", "bug"),
    [
        ("SELECT * FROM no_such_table", (), asyncpg.UndefinedTableError),
        ("SELEKT 1", (), asyncpg.PostgresSyntaxError),
        ("SELECT $1::int", (1, 2), asyncpg.InterfaceError),
        ("SELECT $1::int", ("text",), asyncpg.DataError),
        ("SELECT 1 / 0", (), asyncpg.DivisionByZeroError),
        ("INSERT INTO templates (id, name, body) VALUES (1, 'n', 'b')", (), asyncpg.UniqueViolationError),
    ],
)
async def test_a_bug_is_no_outage(
    database: Database, statement: str, arguments: tuple[object, ...], bug: type[Exception]
) -> None:
    with pytest.raises(bug):
        await database.read(lambda connection: connection.execute(statement, *arguments))
    await database.ping()


async def test_an_error_of_the_bodys_own_passes_and_rolls_its_transaction_back(database: Database) -> None:
    with pytest.raises(LookupError):  # noqa: PT012
        async with database.connection() as connection, connection.transaction():
            await connection.execute("DELETE FROM templates")
            raise LookupError
    assert await database.read(lambda c: c.fetchval("SELECT count(*) FROM templates")) >= 1000


async def test_a_closed_database_is_an_outage_and_may_be_closed_again(url: str) -> None:
    database = await Database.connect(url, **SETTINGS)
    await database.close(1.0)
    with pytest.raises(StorageUnavailableError):
        await database.ping()
    await database.close(1.0)


async def test_closing_waits_for_what_is_in_use(url: str) -> None:
    database = await Database.connect(url, **SETTINGS)
    async with database.connection() as connection:
        closing = asyncio.create_task(database.close(5.0))
        await connection.execute("SELECT pg_sleep(0.05)")
        assert not closing.done()
    await closing


async def test_closing_cuts_off_what_does_not_end_in_time(url: str, caplog: pytest.LogCaptureFixture) -> None:
    database = await Database.connect(url, **SETTINGS)
    started = asyncio.Event()

    async def sleep(connection: object) -> None:
        started.set()
        await connection.execute("SELECT pg_sleep(30)")  # type: ignore[attr-defined]

    reading = asyncio.create_task(database.read(sleep))
    await started.wait()
    async with asyncio.timeout(2):
        await database.close(0.1)
        with pytest.raises(StorageUnavailableError):
            await reading
    assert "connections to PostgreSQL were cut off" in caplog.text
