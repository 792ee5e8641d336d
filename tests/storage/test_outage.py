"""A server that goes away, hangs, or is cut off, and comes back. Runs on asyncio's own event loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from app.domain.errors import StorageUnavailableError
from app.domain.template import Template, TemplateDraft
from app.embedded.postgres import EmbeddedPostgres
from app.storage.migrate import migrate
from app.storage.postgres import ANSWER_GRACE_S, ConnectionLostError, Database
from app.storage.templates import TemplateRepository
from tests.storage.conftest import OpenDatabase, wait_for
from tests.storage.relay import Relay
from tests.ticks import Ticks

POOL = 8


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A migrated server of this module's own, which each test leaves running."""
    with EmbeddedPostgres() as postgres:
        yield postgres


@pytest.fixture
async def database(postgres: EmbeddedPostgres, open_database: OpenDatabase) -> Database:
    await migrate(postgres.url("app"))
    return await open_database(postgres.url("app"), pool_min=2, pool_max=POOL)


@pytest.fixture
async def repository(database: Database) -> TemplateRepository:
    return TemplateRepository(database)


async def fill(database: Database) -> None:
    """Opens as many connections as the pool holds; they are idle after."""
    together = asyncio.Barrier(POOL)

    async def hold() -> None:
        async with database.connection():
            await together.wait()

    await asyncio.gather(*(hold() for _ in range(POOL)))


async def read_all(repository: TemplateRepository) -> None:
    """As many reads at once as there are connections; the first that fails raises."""
    templates = await asyncio.gather(*(repository.get(number) for number in range(1, POOL + 1)))
    assert [template.id for template in templates] == list(range(1, POOL + 1))


async def test_after_a_restart_that_nobody_noticed_every_read_succeeds(
    postgres: EmbeddedPostgres, database: Database, repository: TemplateRepository
) -> None:
    """The event loop stands still during the restart, so that each read is sent on a connection already dead."""
    await fill(database)
    postgres.restart()
    await read_all(repository)


async def test_after_a_restart_that_was_noticed_every_read_and_write_succeeds(
    postgres: EmbeddedPostgres, database: Database, repository: TemplateRepository
) -> None:
    await fill(database)
    await asyncio.to_thread(postgres.restart)
    await read_all(repository)
    await asyncio.gather(*(repository.update(number, TemplateDraft("n", ""), None) for number in range(1, POOL + 1)))


async def test_after_a_lost_write_no_other_write_is_lost(
    postgres: EmbeddedPostgres, database: Database, repository: TemplateRepository
) -> None:
    """A write is never tried twice: whether the first one was carried out is not known."""
    await fill(database)
    postgres.restart()
    with pytest.raises(StorageUnavailableError):
        await repository.update(1, TemplateDraft("n", ""), None)
    await asyncio.gather(*(repository.update(number, TemplateDraft("n", ""), None) for number in range(1, POOL + 1)))


async def test_while_the_server_is_down_callers_are_told_at_once_and_when_it_is_up_none_fails(
    postgres: EmbeddedPostgres,
    database: Database,
    repository: TemplateRepository,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await fill(database)
    await asyncio.to_thread(postgres.kill)
    try:
        async with Ticks() as ticks:
            outcomes = await asyncio.gather(
                *(repository.get(number) for number in range(1, 3 * POOL)), return_exceptions=True
            )
        assert ticks.seconds < 1
        assert {type(outcome) for outcome in outcomes} <= {StorageUnavailableError, ConnectionLostError}

        async def pool_has_complained() -> bool:
            return "connection floor" in caplog.text

        await wait_for(pool_has_complained)
        assert "Traceback" not in caplog.text
    finally:
        await asyncio.to_thread(postgres.start)
    await read_all(repository)


async def test_readers_during_restarts_see_outages_only_and_go_on_after(
    postgres: EmbeddedPostgres, database: Database, repository: TemplateRepository
) -> None:
    over = asyncio.Event()
    read: list[Template] = []

    async def read_on() -> None:
        while not over.is_set():
            try:
                read.append(await repository.get(7))
            except StorageUnavailableError:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as readers:
        for _ in range(2 * POOL):
            readers.create_task(read_on())
        for _ in range(2):
            await asyncio.to_thread(postgres.restart)
            before = len(read)

            async def is_read_again(before: int = before) -> bool:
                return len(read) > before + 4 * POOL

            await wait_for(is_read_again)
        over.set()
    await read_all(repository)


async def test_a_hung_server_costs_a_caller_its_deadline_and_none_when_it_is_back(
    postgres: EmbeddedPostgres, open_database: OpenDatabase
) -> None:
    await migrate(postgres.url("app"))
    database = await open_database(postgres.url("app"), pool_min=2, pool_max=POOL, statement_timeout_s=1.0)
    repository = TemplateRepository(database)
    await fill(database)
    await asyncio.to_thread(postgres.suspend)
    try:
        async with Ticks() as ticks:
            outcomes = await asyncio.gather(
                *(repository.get(number) for number in range(1, POOL + 1)), return_exceptions=True
            )
        assert ticks.seconds < 1.0 + ANSWER_GRACE_S + 0.5
        assert {type(outcome) for outcome in outcomes} == {StorageUnavailableError}
    finally:
        await asyncio.to_thread(postgres.resume)
    await read_all(repository)


async def test_connections_cut_off_without_a_word_cost_one_caller_and_not_one_each(
    postgres: EmbeddedPostgres, open_database: OpenDatabase
) -> None:
    """As when a firewall forgets them: they look open, and whatever is sent on them is lost."""
    async with Relay(postgres.port) as relay:
        url = postgres.url("app").replace(f":{postgres.port}/", f":{relay.port}/")
        await migrate(url)
        database = await open_database(url, pool_min=2, pool_max=POOL, statement_timeout_s=1.0)
        repository = TemplateRepository(database)
        await fill(database)
        relay.cut_silently()
        with pytest.raises(StorageUnavailableError):
            await repository.get(1)
        await read_all(repository)
