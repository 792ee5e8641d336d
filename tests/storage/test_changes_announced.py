"""What the database announces of a change, heard on a plain connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from app.embedded.stack import EmbeddedStack
from app.storage.postgres import Connection
from tests.storage.conftest import database_name

CHANNEL = "template_changes"
_END = "template_end"
_FILL = "INSERT INTO templates (id, name, body) SELECT n, 'n', 'b' FROM generate_series($1::bigint, $2::bigint) AS n"


class Ear:
    """Payloads, in the order in which they came, without the moments before their `@`, which are in `moments`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard: list[str] = []
        self.moments: list[float] = []
        self.longest_bytes = 0
        self._end = asyncio.Event()

    async def listen(self) -> None:
        await self._connection.add_listener(CHANNEL, lambda *arguments: self._hear(str(arguments[3])))
        await self._connection.add_listener(_END, lambda *_arguments: self._end.set())

    def _hear(self, payload: str) -> None:
        self.longest_bytes = max(self.longest_bytes, len(payload.encode()))
        moment, _, listed = payload.rpartition("@")
        self.moments += [int(moment) / 1000] if moment else []
        self._heard.append(listed)

    async def heard(self) -> list[str]:
        """What has come since the last call; nothing committed until now is still on its way."""
        self._end.clear()
        await self._connection.execute(f"NOTIFY {_END}")
        async with asyncio.timeout(30):
            await self._end.wait()
        heard, self._heard = self._heard, []
        return heard


@pytest.fixture
async def ear(url: str) -> AsyncIterator[Ear]:
    connection = await asyncpg.connect(url)
    ear = Ear(connection)
    await ear.listen()
    yield ear
    await connection.close(timeout=2.0)


async def test_each_kind_of_write_is_announced_with_its_version(writer: Connection, ear: Ear) -> None:
    await writer.execute("INSERT INTO templates (id, name, body) VALUES (5001, 'n', '')")
    await writer.execute("UPDATE templates SET body = 'b' WHERE id = 5001")
    await writer.execute("DELETE FROM templates WHERE id = 5001")
    await writer.execute("INSERT INTO templates (id, name, body) VALUES (5001, 'n', '')")
    assert await ear.heard() == ["5001:1", "5001:2", "5001:3", "5001:4"]


async def test_a_change_is_dated_by_its_statement_and_not_by_its_commit(writer: Connection, ear: Ear) -> None:
    async with writer.transaction():
        before: float = await writer.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        await writer.execute("UPDATE templates SET body = '' WHERE id = 7")
        after: float = await writer.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        await writer.execute("SELECT pg_sleep(0.05)")
    assert await ear.heard() == ["7:2"]
    (moment,) = ear.moments
    assert before - 0.0005 <= moment <= after + 0.0005


async def test_a_write_that_changes_nothing_is_not_announced(writer: Connection, ear: Ear) -> None:
    await writer.execute("UPDATE templates SET body = '' WHERE id = 999999")
    await writer.execute("DELETE FROM templates WHERE false")
    await writer.execute("INSERT INTO templates (id, name, body) VALUES (1, 'n', '') ON CONFLICT DO NOTHING")
    assert await ear.heard() == []


async def test_a_rollback_announces_nothing_and_a_savepoint_only_what_is_kept(writer: Connection, ear: Ear) -> None:
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("UPDATE templates SET body = '' WHERE id = 2")
    await transaction.rollback()
    async with writer.transaction():
        await writer.execute("UPDATE templates SET body = '' WHERE id = 3")
        savepoint = writer.transaction()
        await savepoint.start()
        await writer.execute("UPDATE templates SET body = '' WHERE id IN (3, 4)")
        await savepoint.rollback()
        await writer.execute("UPDATE templates SET body = '' WHERE id = 5")
    assert await ear.heard() == ["3:2", "5:2"]


async def test_nothing_is_announced_before_the_commit(writer: Connection, ear: Ear) -> None:
    async with writer.transaction():
        await writer.execute("UPDATE templates SET body = '' WHERE id = 6")
        assert await ear.heard() == []
    assert await ear.heard() == ["6:2"]


async def test_one_statement_is_one_payload_where_it_fits(writer: Connection, ear: Ear) -> None:
    await writer.execute("UPDATE templates SET body = '' WHERE id BETWEEN 10 AND 109")
    assert await ear.heard() == [",".join(f"{n}:2" for n in range(10, 110))]


async def test_an_upsert_of_new_and_known_ids_announces_all(writer: Connection, ear: Ear) -> None:
    await writer.execute(
        "INSERT INTO templates (id, name, body) VALUES (110, 'n', ''), (5110, 'n', '') "
        "ON CONFLICT (id) DO UPDATE SET body = 'upserted'"
    )
    assert sorted(await ear.heard()) == ["110:2", "5110:1"]


async def test_a_thousand_of_the_longest_ids_and_versions_fit_the_payloads(
    writer: Connection, admin: Connection, ear: Ear
) -> None:
    """Ids and versions of 19 digits; NOTIFY refuses 8,000 bytes."""
    first = 9_000_000_000_000_000_000
    await admin.execute(
        "INSERT INTO template_changes (id, version, op) SELECT n, $2::bigint, 'D' "
        "FROM generate_series($1::bigint, $1::bigint + 999) AS n",
        first,
        first,
    )
    await writer.execute(_FILL, first, first + 999)
    payloads = await ear.heard()
    assert len(payloads) == 6
    assert ear.longest_bytes < 7_900
    items = [item for payload in payloads for item in payload.split(",")]
    assert sorted(items) == [f"{first + n}:{first + 1}" for n in range(1000)]


@pytest.mark.parametrize("statement", ["UPDATE templates SET body = 'x' WHERE id", "DELETE FROM templates WHERE id"])
async def test_more_than_a_thousand_are_told_in_one_word(writer: Connection, ear: Ear, statement: str) -> None:
    await writer.execute(_FILL, 20_001, 21_001)
    assert await ear.heard() == ["*"]
    await writer.execute(f"{statement} BETWEEN 20001 AND 21000")
    payloads = await ear.heard()
    assert sum(len(payload.split(",")) for payload in payloads) == 1000
    await writer.execute("DELETE FROM templates WHERE id BETWEEN 20001 AND 21001")
    await ear.heard()


async def test_truncate_is_told_in_one_word_and_that_of_an_empty_table_not(
    fresh_database: Callable[[], str],
) -> None:
    connection = await asyncpg.connect(fresh_database())
    try:
        ear = Ear(connection)
        await ear.listen()
        await connection.execute("TRUNCATE templates")
        assert await ear.heard() == ["*"]
        await connection.execute("TRUNCATE templates")
        assert await ear.heard() == []
    finally:
        await connection.close(timeout=2.0)


async def test_plain_sql_of_another_role_is_announced(
    stack: EmbeddedStack, admin: Connection, url: str, ear: Ear
) -> None:
    await admin.execute("CREATE ROLE clerk LOGIN; GRANT SELECT, UPDATE ON templates TO clerk")
    try:
        script = "BEGIN; UPDATE templates SET body = 'by hand' WHERE id = 200; COMMIT;"
        await asyncio.to_thread(stack.postgres.sql, script, role="clerk", database=database_name(url))
        assert await ear.heard() == ["200:2"]
    finally:
        await admin.execute("DROP OWNED BY clerk; DROP ROLE clerk")


async def test_bulk_writes_of_100_000_rows_take_bounded_time_and_are_told_in_one_word(
    fresh_database: Callable[[], str],
) -> None:
    connection = await asyncpg.connect(fresh_database())
    seconds: dict[str, float] = {}
    try:
        ear = Ear(connection)
        await ear.listen()
        records = [(100_000 + n, "name", "body " * 40) for n in range(100_000)]
        started = time.perf_counter()
        await connection.copy_records_to_table("templates", records=records, columns=["id", "name", "body"])
        seconds["COPY"] = time.perf_counter() - started
        assert await ear.heard() == ["*"]
        for statement in (
            "UPDATE templates SET body = 'x' WHERE id >= 100000",
            "DELETE FROM templates WHERE id >= 100000",
        ):
            started = time.perf_counter()
            await connection.execute(statement)
            seconds[statement.partition(" ")[0]] = time.perf_counter() - started
            assert await ear.heard() == ["*"]
        started = time.perf_counter()
        await connection.copy_records_to_table("templates", records=records, columns=["id", "name", "body"])
        seconds["COPY again"] = time.perf_counter() - started
        assert await connection.fetchval("SELECT min(version) FROM templates WHERE id >= 100000") == 4
    finally:
        await connection.close(timeout=2.0)
    print(", ".join(f"{what} {took:.2f} s" for what, took in seconds.items()))
    assert max(seconds.values()) < 60
