"""Callers that give up. Runs on asyncio's own event loop and on uvloop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.errors import StorageUnavailableError
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.stack import EmbeddedStack
from app.storage import postgres as postgres_module
from app.storage.postgres import CANCEL_TIMEOUT_S, Connection, Database, Session
from app.storage.templates import LOAD_MARK, TemplateRepository
from tests.storage.conftest import POLL_S, OpenDatabase, wait_for
from tests.storage.relay import Relay
from tests.ticks import Ticks

_LOADING = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND strpos(query, $1) > 0 AND pid <> pg_backend_pid()"
)
_PID = "SELECT pg_backend_pid()"
IN_200_MS = round(0.2 / (POLL_S + 0.001))
"""Polls, each of which takes its own time too: a server that is kept from running answers none."""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that is acknowledged late is acknowledged: no connection is given up for it."""
    monkeypatch.setattr(postgres_module, "CANCEL_TIMEOUT_S", 30.0)


async def pid_of(database: Database) -> int:
    pid: int = await database.read(lambda connection: connection.fetchval(_PID))
    return pid


async def until_loading(admin: Connection, count: int) -> int:
    async def reached() -> bool:
        return bool(await admin.fetchval(_LOADING, LOAD_MARK) == count)

    return await wait_for(reached)


@pytest.mark.usefixtures("patient")
async def test_a_cancelled_load_is_gone_from_the_server_within_200_ms_and_its_connection_stays(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    database = await open_database(url, pool_max=1)
    pid = await pid_of(database)
    load = asyncio.create_task(TemplateRepository(database, 4_000).get(1))
    await until_loading(admin, 1)
    load.cancel()
    assert await until_loading(admin, 0) <= IN_200_MS
    with pytest.raises(asyncio.CancelledError):
        await load
    assert await pid_of(database) == pid


@pytest.mark.usefixtures("patient")
async def test_a_load_whose_time_is_up_is_gone_too_and_times_out_as_its_caller_said(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    """A deadline of the caller's own is no outage: `TimeoutError` must come out, not `StorageUnavailableError`."""
    database = await open_database(url, pool_max=1)
    pid = await pid_of(database)
    deadline = asyncio.timeout(None)

    async def run_out() -> None:
        await until_loading(admin, 1)
        deadline.reschedule(asyncio.get_running_loop().time())

    running_out = asyncio.create_task(run_out())
    with pytest.raises(TimeoutError):
        async with deadline:
            await TemplateRepository(database, 4_000).get(1)
    await running_out
    assert await until_loading(admin, 0) <= IN_200_MS
    assert await pid_of(database) == pid


@pytest.mark.usefixtures("patient")
async def test_a_call_cancelled_between_preparing_and_executing_does_not_stay_open_on_the_server(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    """There the driver has asked the server to flush but not to end, and the statement timeout goes on running."""
    database = await open_database(url, pool_max=1)
    pid = await pid_of(database)
    with pytest.raises(asyncio.CancelledError):  # noqa: PT012
        async with database.connection() as connection:
            await connection.prepare(f"SELECT 1 AS {LOAD_MARK}")
            assert await admin.fetchval(_LOADING, LOAD_MARK) == 1
            raise asyncio.CancelledError
    assert await admin.fetchval(_LOADING, LOAD_MARK) == 0
    assert await pid_of(database) == pid


@pytest.mark.usefixtures("patient")
async def test_a_transaction_cancelled_as_it_begins_is_undone_before_its_connection_goes_back(
    url: str, open_database: OpenDatabase
) -> None:
    """The server has begun it, and its answer is on the way. The driver would find it open, and log an error."""
    begun = asyncio.Event()

    class Beginning(Session):
        async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
            answer = await super().execute(query, *args, timeout=timeout)
            if query == "BEGIN":
                begun.set()
                await asyncio.Event().wait()
            return answer

    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    database = await open_database(url, pool_max=1, session=Beginning)
    pid = await pid_of(database)

    async def write() -> None:
        async with database.transaction():
            raise AssertionError("it has not begun")

    writing = asyncio.create_task(write())
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await pid_of(database) == pid
    assert not complaints


async def test_a_load_cancelled_at_any_moment_is_gone_within_200_ms(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    """From before the connection is there until long after the query has begun, each time with a new connection."""
    loop = asyncio.get_running_loop()
    for tenths_of_ms in range(0, 40, 2):
        database = await open_database(url, pool_max=1)
        load = asyncio.create_task(TemplateRepository(database, 4_000).get(1))
        loop.call_later(tenths_of_ms / 10_000, load.cancel)
        with pytest.raises(asyncio.CancelledError):
            await load
        assert await until_loading(admin, 0) <= IN_200_MS
        await database.ping()


async def test_a_load_that_a_request_to_cancel_overtakes_is_gone_nevertheless(
    stack: EmbeddedStack,
    url: str,
    open_database: OpenDatabase,
    admin: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The query is held up on its way; the request, which takes another connection, comes first and is ignored."""
    monkeypatch.setattr(postgres_module, "CANCEL_TIMEOUT_S", 2.0)
    async with Relay(stack.postgres.port) as relay:
        database = await open_database(url.replace(f":{stack.postgres.port}/", f":{relay.port}/"), pool_max=1)
        await TemplateRepository(database).get(1)
        relay.hold()
        load = asyncio.create_task(TemplateRepository(database, 4_000).get(1))
        await asyncio.sleep(0)
        load.cancel()
        await relay.until_ended()
        relay.let_go()
        await until_loading(admin, 1)
        with pytest.raises(asyncio.CancelledError):
            await load
        assert await until_loading(admin, 0) <= 5 * IN_200_MS
        await database.ping()
    assert "a connection to PostgreSQL was given up" in caplog.text


async def test_a_caller_cancelled_while_it_waits_for_a_connection_leaves_its_place(
    url: str, open_database: OpenDatabase
) -> None:
    database = await open_database(url, pool_max=1)
    async with database.connection():
        waiting = asyncio.create_task(database.ping())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await database.ping()


async def test_a_caller_cancelled_in_the_moment_that_it_gets_a_connection_gives_it_back(
    url: str, open_database: OpenDatabase
) -> None:
    """The connection is put into the queue and the waiter is cancelled before the waiter runs again."""
    database = await open_database(url, pool_max=1, acquire_timeout_s=10.0)
    for steps in range(6):
        async with database.connection():
            waiting = asyncio.create_task(database.ping())
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await database.ping()


async def test_a_caller_cancelled_while_a_connection_is_opened_leaks_no_slot(
    stack: EmbeddedStack, url: str, open_database: OpenDatabase
) -> None:
    async with Relay(stack.postgres.port) as relay:
        through_relay = url.replace(f":{stack.postgres.port}/", f":{relay.port}/")
        database = await open_database(through_relay, pool_min=1, pool_max=2)
        async with database.connection():
            relay.stall()
            opening = asyncio.create_task(database.ping())
            await relay.until_stalled(1)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            relay.answer()
            await database.ping()


async def test_after_a_storm_of_cancelled_loads_every_connection_is_good_and_free(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    database = await open_database(url, pool_max=4)
    slow, quick = TemplateRepository(database, 20), TemplateRepository(database)
    chance = random.Random(20)
    for _ in range(10):
        loads = [asyncio.create_task(slow.get(number)) for number in range(1, 13)]
        for load in loads:
            asyncio.get_running_loop().call_later(chance.uniform(0, 0.06), load.cancel)
        for number, outcome in enumerate(await asyncio.gather(*loads, return_exceptions=True), start=1):
            if not isinstance(outcome, asyncio.CancelledError):
                assert not isinstance(outcome, BaseException)
                assert outcome.id == number
    assert await until_loading(admin, 0) <= IN_200_MS
    together = asyncio.Barrier(4)

    async def hold(number: int) -> int:
        async with database.connection():
            await together.wait()
        return (await quick.get(number)).id

    async with asyncio.timeout(30):
        assert await asyncio.gather(*(hold(number) for number in range(1, 5))) == [1, 2, 3, 4]


async def test_a_caller_that_gives_up_on_a_hung_server_is_soon_let_go(
    own_postgres: Callable[..., EmbeddedPostgres], open_database: OpenDatabase
) -> None:
    postgres = own_postgres()
    database = await open_database(postgres.url("app"), pool_max=1, statement_timeout_s=30.0, connect_timeout_s=2.0)
    sleeping = asyncio.create_task(database.read(lambda c: c.execute("SELECT pg_sleep(20)")))

    async def is_sleeping() -> bool:
        return postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"

    await wait_for(is_sleeping)
    await asyncio.to_thread(postgres.suspend)
    try:
        sleeping.cancel()
        async with Ticks() as ticks:
            with pytest.raises(asyncio.CancelledError):
                await sleeping
        assert ticks.seconds < CANCEL_TIMEOUT_S + 0.5
        with pytest.raises(StorageUnavailableError):
            await database.ping()
    finally:
        await asyncio.to_thread(postgres.resume)
    await database.ping()
