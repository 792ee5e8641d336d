"""Applies `migrations/NNN_name.sql` in order, each exactly once, however many processes start together."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from app.storage.errors import MigrationError
from app.storage.postgres import CONNECTION_LOST, Connection, dedicated_connection

logger = logging.getLogger(__name__)

MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "migrations"
"""The project's own, which lie beside its package."""

_FILE_NAME = re.compile(r"(?P<number>\d{3})_[a-z0-9_]+\.sql")
_LOCK_KEY = 4_920_717_286_033_241_071
"""Arbitrary, and the same in every release: advisory locks are told apart by it."""

_OWNER = """
    SELECT pg_get_userbyid(datdba) FROM pg_database
    WHERE datname = current_database() AND pg_has_role(current_user, datdba, 'MEMBER')
"""
_RECORD = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name       text        PRIMARY KEY,
        checksum   text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `checksum` is the SHA-256 of its bytes, in hexadecimal."""

    name: str
    sql: str
    checksum: str


def read_migrations(directory: Path) -> list[Migration]:
    """The migrations that lie directly in the directory, by number.

    Raises `MigrationError` where a file is none (hidden ones aside), or where the numbers are not 001, 002, … with
    neither gap nor duplicate.
    """
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
        contents = [(path.name, path.read_bytes()) for path in files]
    except OSError as error:
        raise MigrationError(f"migrations cannot be read: {error}") from error
    if not files:
        raise MigrationError(f"there are no migrations in {directory}")
    migrations: list[Migration] = []
    for name, content in contents:
        matched = _FILE_NAME.fullmatch(name)
        if matched is None:
            raise MigrationError(f"{name}: a migration's file must be named like 001_what_it_does.sql")
        number, next_number = int(matched["number"]), len(migrations) + 1
        if number == 0:
            raise MigrationError(f"{name}: numbers start at 001")
        if number < next_number:
            raise MigrationError(f"{name} has the same number as {migrations[number - 1].name}")
        if number > next_number:
            raise MigrationError(f"{name}: there is no migration {next_number:03d} before it")
        try:
            sql = content.decode()
        except UnicodeDecodeError as error:
            raise MigrationError(f"{name} is not UTF-8: {error}") from error
        migrations.append(Migration(name, sql, hashlib.sha256(content).hexdigest()))
    return migrations


async def migrate(
    url: str,
    directory: Path = MIGRATIONS,
    *,
    connect_timeout_s: float = 2.0,
    start_timeout_s: float = 10.0,
    lock_timeout_s: float = 60.0,
    statement_timeout_s: float = 300.0,
) -> list[str]:
    """Applies what is pending, each file in a transaction of its own, and returns the names of those applied now.

    Whoever connects, what is made belongs to the database's owner, if the role is a member of it. Another process that
    migrates is waited for up to `lock_timeout_s`.

    Raises `MigrationError` where a file fails (nothing of it stays) or where the files differ from those recorded as
    applied; `StorageUnavailableError` and `StorageConfigurationError` as `Database.connect` does.
    """
    migrations = read_migrations(directory)
    async with dedicated_connection(
        url,
        connect_timeout_s=connect_timeout_s,
        start_timeout_s=start_timeout_s,
        statement_timeout_s=max(statement_timeout_s, lock_timeout_s + 1),
        lock_timeout_s=lock_timeout_s,
        application_name="migrate",
    ) as connection:
        try:
            # Session-level: held across the transactions below, and freed by the connection's end at the latest.
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        except asyncpg.LockNotAvailableError as error:
            raise MigrationError(f"another process has been migrating for more than {lock_timeout_s:g} s") from error
        owner = await connection.fetchval(_OWNER)
        if owner is not None:
            await connection.execute("SELECT set_config('role', $1, false)", owner)
        await connection.execute(_RECORD)
        pending = await _pending(connection, migrations)
        for migration in pending:
            await _apply(connection, migration)
        return [migration.name for migration in pending]


async def _pending(connection: Connection, migrations: Sequence[Migration]) -> Sequence[Migration]:
    recorded = await connection.fetch("SELECT name, checksum FROM schema_migrations ORDER BY name")
    checksums = {migration.name: migration.checksum for migration in migrations}
    for row in recorded:
        name = row["name"]
        if name not in checksums:
            raise MigrationError(f"{name} was applied to this database, but there is no such file")
        if checksums[name] != row["checksum"]:
            raise MigrationError(f"{name} has changed since it was applied to this database: add a new file instead")
    # Numbers have no gap, so what was applied is the beginning of the list, unless somebody edited the record.
    applied = len(recorded)
    if [row["name"] for row in recorded] != [migration.name for migration in migrations[:applied]]:
        raise MigrationError("schema_migrations lacks a migration that comes before one it has")
    return migrations[applied:]


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            if not connection.is_in_transaction():
                raise MigrationError(f"{migration.name} ends the transaction that it runs in: remove its COMMIT")
            await connection.execute(
                "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)", migration.name, migration.checksum
            )
    except asyncpg.PostgresError as error:
        if isinstance(error, CONNECTION_LOST):
            raise
        raise MigrationError(f"{_where(migration, error)}: {error.args[0]}") from error
    logger.info("applied %s", migration.name)


def _where(migration: Migration, error: asyncpg.PostgresError) -> str:
    # The driver gives a one-based character position as text, where the server named one.
    position = getattr(error, "position", None)
    if position is None:
        return migration.name
    return f"{migration.name}, line {migration.sql.count(chr(10), 0, int(position) - 1) + 1}"
