"""Imports: all or nothing, whatever breaks, and no connection lost over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from app.domain.errors import (
    DeadlineExceededError,
    InvalidInputError,
    OverloadedError,
    RequestIdReusedError,
    StorageUnavailableError,
    Violation,
)
from app.domain.ports import ImportBatch, ImportSummary, Written
from app.domain.template import TemplateDraft
from app.embedded.postgres import EmbeddedPostgres
from app.storage.imports import DEFAULT_LIMITS, ImportLimits
from app.storage.migrate import migrate
from app.storage.postgres import Connection, Database
from app.storage.templates import TemplateRepository
from tests.storage.conftest import OpenDatabase, wait_for
from tests.storage.test_changes_announced import Ear, ear  # noqa: F401 - a fixture
from tests.storage.test_writers import until_blocked

LIMITS = replace(DEFAULT_LIMITS, idle_s=30.0, answer_s=30.0)
MANY = 50
"""Batches of `big` that are past what the driver keeps before it writes, many times over."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def batch(*names: str, body: str = "", request_id: str | None = None) -> ImportBatch:
    return ImportBatch([TemplateDraft(name, body) for name in names], request_id)


def big(name: str) -> ImportBatch:
    """About 100 KB."""
    return batch(*[name] * 10, body="x" * 10_000)


class Source:
    """Batches as a test sends them; `asked` says how many have been asked for."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[ImportBatch | BaseException | None] = asyncio.Queue()
        self.asked = 0
        self._waiting = asyncio.Event()

    def send(self, *items: ImportBatch | BaseException | None) -> Source:
        """An exception breaks the stream off; `None` ends it."""
        for item in items:
            self._queue.put_nowait(item)
        return self

    async def until_waiting(self) -> None:
        """All that was sent has been taken, and more is asked for."""
        async with asyncio.timeout(30):
            while not self._queue.empty() or not self._waiting.is_set():
                self._waiting.clear()
                await self._waiting.wait()

    def __aiter__(self) -> AsyncIterator[ImportBatch]:
        return self

    async def __anext__(self) -> ImportBatch:
        self.asked += 1
        if self._queue.empty():
            self._waiting.set()
        item = await self._queue.get()
        self._waiting.clear()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            raise item
        return item


Imports = Callable[..., Awaitable[TemplateRepository]]


@pytest.fixture
async def imports(url: str, open_database: OpenDatabase) -> Imports:
    """Makes repositories with limits of their own, each with a pool of one connection unless it says otherwise."""

    async def make(limits: ImportLimits = LIMITS, pool_max: int = 1, **arguments: Any) -> TemplateRepository:
        database = await open_database(url, pool_max=pool_max)
        return TemplateRepository(database, import_limits=limits, **arguments)

    return make


async def named(admin: Connection, name: str) -> int:
    found: int = await admin.fetchval("SELECT count(*) FROM templates WHERE name = $1", name)
    return found


async def assert_no_trace(admin: Connection, repository: TemplateRepository, name: str) -> None:
    """Nor of a transaction, nor is the pool's only connection lost."""
    assert await named(admin, name) == 0
    async with asyncio.timeout(10):
        await repository.page(0, 1)
    assert repository.imports_in_flight == 0

    async def idle() -> bool:
        return not await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'tests' AND xact_start IS NOT NULL"
        )

    await wait_for(idle)


async def test_all_are_made_and_the_summary_counts_bytes_of_utf_8(imports: Imports) -> None:
    repository = await imports()
    source = Source().send(batch("all ü", "all 🙂", body="漢字"), batch(), batch("all 3"), None)
    written = await repository.import_all(source)
    summary = written.answer
    assert not written.is_repeat
    assert (summary.imported, summary.size_bytes) == (3, 6 + 8 + 5 + 2 * 6)
    assert summary.last_id == summary.first_id + 2
    made = await repository.page(summary.first_id - 1, 10)
    assert [(template.name, template.body, template.version) for template in made] == [
        ("all ü", "漢字", 1),
        ("all 🙂", "漢字", 1),
        ("all 3", "", 1),
    ]


@pytest.mark.parametrize("batches", [[], [batch()], [batch(), batch()]])
async def test_an_import_of_nothing_makes_nothing(imports: Imports, batches: list[ImportBatch]) -> None:
    repository = await imports()
    written = await repository.import_all(Source().send(*batches, None))
    assert written == Written(ImportSummary(0, 0, 0, 0))


async def test_ids_are_those_of_this_import_though_others_write_meanwhile(imports: Imports, admin: Connection) -> None:
    repository = await imports()
    source = Source().send(batch("mine"))
    importing = asyncio.create_task(repository.import_all(source))
    await source.until_waiting()
    theirs = await admin.fetchval("INSERT INTO templates (name, body) VALUES ('theirs', '') RETURNING id")
    source.send(batch("mine"), None)
    summary = (await importing).answer
    assert summary.imported == 2
    names = [template.name for template in await repository.page(summary.first_id - 1, 1)]
    names += [template.name for template in await repository.page(summary.last_id - 1, 1)]
    assert names == ["mine", "mine"]
    assert theirs not in (summary.first_id, summary.last_id)


async def test_it_is_announced_at_its_commit_id_by_id_or_where_they_are_many_in_one_word(
    imports: Imports,
    ear: Ear,  # noqa: F811
) -> None:
    repository = await imports()
    source = Source().send(batch("announced", "announced"))
    importing = asyncio.create_task(repository.import_all(source))
    await source.until_waiting()
    assert await ear.heard() == []
    source.send(None)
    first = (await importing).answer.first_id
    assert await ear.heard() == [f"{first}:1,{first + 1}:1"]
    await repository.import_all(Source().send(batch(*["announced"] * 1001), None))
    assert await ear.heard() == ["*"]


INVALID = InvalidInputError(Violation("templates[17].name", "must not be blank"))


@pytest.mark.parametrize("sent", [0, 1, MANY])
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_stream_that_fails_leaves_nothing_at_any_stage(
    imports: Imports, admin: Connection, sent: int, keyed: bool
) -> None:
    """Before the first batch, while the driver still keeps all, and with most of it on the server."""
    ends: list[tuple[str, int]] = []
    repository = await imports(on_import=lambda end, imported: ends.append((end, imported)))
    name = f"fails {sent} {keyed}"
    source = Source()
    if sent:
        source.send(replace(big(name), request_id=name if keyed else None), *[big(name)] * (sent - 1))
    with pytest.raises(InvalidInputError) as caught:
        await repository.import_all(source.send(INVALID))
    assert caught.value is INVALID
    await assert_no_trace(admin, repository, name)
    assert ends == [("rejected", 0)]
    assert await admin.fetchval("SELECT count(*) FROM write_requests WHERE request_id = $1", name) == 0


@pytest.mark.parametrize("sent", [0, 1, MANY])
async def test_a_cancelled_import_leaves_nothing_at_any_stage(imports: Imports, admin: Connection, sent: int) -> None:
    ends: list[tuple[str, int]] = []
    repository = await imports(on_import=lambda end, imported: ends.append((end, imported)))
    name = f"cancelled {sent}"
    source = Source().send(*[big(name)] * sent)
    importing = asyncio.create_task(repository.import_all(source))
    await source.until_waiting()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    await assert_no_trace(admin, repository, name)
    assert ends == [("broken_off", 0)]


async def test_an_import_cancelled_at_any_moment_of_its_end_is_done_or_not_at_all(
    imports: Imports, admin: Connection
) -> None:
    repository = await imports()
    loop = asyncio.get_running_loop()
    made = set()
    for tenths_of_ms in range(0, 120, 6):
        name = f"ending {tenths_of_ms}"
        source = Source().send(big(name), big(name))
        importing = asyncio.create_task(repository.import_all(source))
        await source.until_waiting()
        source.send(None)
        loop.call_later(tenths_of_ms / 10_000, importing.cancel)
        await asyncio.wait({importing})
        count = await named(admin, name)
        made.add(count)
        if not importing.cancelled():
            assert importing.result().answer.imported == count == 20
    assert made <= {0, 20}
    assert 0 in made


async def test_a_caller_that_sends_nothing_takes_no_connection_and_is_ended(imports: Imports) -> None:
    repository = await imports(replace(LIMITS, idle_s=0.3))
    source = Source()
    importing = asyncio.create_task(repository.import_all(source))
    await source.until_waiting()
    assert len(await repository.page(0, 1)) == 1  # by the pool's only connection
    with pytest.raises(DeadlineExceededError, match=r"next message of an import must come within 0\.3 s"):
        await importing


@pytest.mark.parametrize("sent", [1, MANY])
async def test_a_caller_that_dawdles_is_ended_and_leaves_nothing(
    imports: Imports, admin: Connection, sent: int
) -> None:
    ends: list[str] = []
    repository = await imports(replace(LIMITS, idle_s=0.3), on_import=lambda end, _imported: ends.append(end))
    with pytest.raises(DeadlineExceededError, match=r"next message of an import must come within 0\.3 s"):
        await repository.import_all(Source().send(*[big(f"dawdles {sent}")] * sent))
    await assert_no_trace(admin, repository, f"dawdles {sent}")
    assert ends == ["late"]


async def test_no_import_takes_longer_than_it_may_however_steadily_it_comes(
    imports: Imports, admin: Connection
) -> None:
    async def trickle() -> AsyncIterator[ImportBatch]:
        while True:
            yield batch("trickle")
            await asyncio.sleep(0.02)

    repository = await imports(replace(LIMITS, total_s=0.5))
    with pytest.raises(DeadlineExceededError, match=r"an import may take 0\.5 s"):
        await repository.import_all(trickle())
    await assert_no_trace(admin, repository, "trickle")


async def test_an_import_may_take_longer_than_a_statement(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    database = await open_database(url, pool_max=1, statement_timeout_s=0.6)
    repository = TemplateRepository(database, import_limits=LIMITS)
    source = Source().send(big("long"))
    importing = asyncio.create_task(repository.import_all(source))
    await source.until_waiting()
    await admin.execute("SELECT pg_sleep(1.5)")
    source.send(big("long"), None)
    assert (await importing).answer.imported == 20
    # The next user of the connection has the pool's own timeouts.
    with pytest.raises(StorageUnavailableError):
        await database.read(lambda connection: connection.execute("SELECT pg_sleep(5)"))


async def test_past_the_bound_imports_are_refused_at_once_and_a_place_that_comes_free_is_taken(
    imports: Imports,
) -> None:
    repository = await imports(replace(LIMITS, concurrent=2), pool_max=3)
    sources = [Source(), Source()]
    running = [asyncio.create_task(repository.import_all(source)) for source in sources]
    for source in sources:
        await source.until_waiting()
    refused = Source()
    with pytest.raises(OverloadedError, match="2 imports are under way, as many as may be at a time"):
        await repository.import_all(refused)
    assert refused.asked == 0
    assert repository.imports_in_flight == 2
    sources[0].send(None)
    await running[0]
    await repository.import_all(Source().send(None))
    sources[1].send(None)
    await running[1]


async def test_an_import_whose_connection_is_lost_fails_and_the_next_one_works(
    imports: Imports, admin: Connection
) -> None:
    """Ended by the server while the import waits for its caller, who then goes on."""
    repository = await imports()
    source = Source().send(*[big("lost")] * MANY)
    importing = asyncio.create_task(repository.import_all(source))
    await source.until_waiting()
    assert await admin.fetchval(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE query LIKE 'COPY%' AND state = 'idle in transaction'"
    )
    source.send(*[big("lost")] * MANY, None)
    with pytest.raises(StorageUnavailableError):
        await importing
    await assert_no_trace(admin, repository, "lost")


async def test_a_server_that_hangs_holds_an_import_no_longer_than_it_may_and_takes_in_no_more(
    own_postgres: Callable[..., EmbeddedPostgres], open_database: OpenDatabase
) -> None:
    """What the caller sends piles up nowhere: no more is asked for than fits the buffers."""
    postgres = own_postgres()
    await migrate(postgres.url("app"))
    database = await open_database(postgres.url("app"), pool_max=1, connect_timeout_s=0.5)
    repository = TemplateRepository(database, import_limits=replace(LIMITS, answer_s=1.0))
    source = Source().send(big("hung"))
    importing = asyncio.create_task(repository.import_all(source))
    await source.until_waiting()
    await asyncio.to_thread(postgres.suspend)
    try:
        source.send(*[big("hung")] * 1_000)
        async with asyncio.timeout(20):
            with pytest.raises(StorageUnavailableError):
                await importing
        assert source.asked < 300
    finally:
        await asyncio.to_thread(postgres.resume)
    await assert_gone(database)


async def assert_gone(database: Database) -> None:
    count: int = await database.read(
        lambda connection: connection.fetchval("SELECT count(*) FROM templates WHERE name = 'hung'")
    )
    assert count == 0


async def test_an_import_sent_again_is_not_done_again_and_gets_the_first_summary(imports: Imports) -> None:
    ends: list[str] = []
    repository = await imports(on_import=lambda end, _imported: ends.append(end))
    first = await repository.import_all(Source().send(batch("x", "y", request_id="again"), batch("z"), None))
    # In other messages: what counts are the templates.
    second = await repository.import_all(Source().send(batch("x", request_id="again"), batch("y", "z"), None))
    assert second == Written(first.answer, is_repeat=True)
    assert ends == ["done", "repeated"]


@pytest.mark.parametrize("names", [["x", "y"], ["x", "y", "z", "z"], ["x", "z", "y"], []])
async def test_an_import_of_other_templates_with_the_same_id_is_refused(
    imports: Imports, admin: Connection, names: list[str]
) -> None:
    repository = await imports()
    key = f"other {len(names)} {names}"
    await repository.import_all(Source().send(batch("x", "y", "z", request_id=key), None))
    before = await admin.fetchval("SELECT count(*) FROM templates")
    with pytest.raises(RequestIdReusedError):
        await repository.import_all(Source().send(batch(*names, request_id=key), None))
    with pytest.raises(RequestIdReusedError):
        await repository.create(TemplateDraft("x", ""), key)
    assert await admin.fetchval("SELECT count(*) FROM templates") == before


async def test_a_duplicate_waits_for_the_first_import_and_is_read_to_its_end_without_a_connection(
    imports: Imports, admin: Connection
) -> None:
    first_replica, second_replica = await imports(), await imports()
    source, duplicate = Source(), Source()
    first = asyncio.create_task(first_replica.import_all(source.send(batch("dup", request_id="dup"))))
    await source.until_waiting()
    second = asyncio.create_task(second_replica.import_all(duplicate.send(batch("dup", request_id="dup"))))
    await until_blocked(admin)
    source.send(None)
    summary = (await first).answer
    await duplicate.until_waiting()
    assert len(await second_replica.page(0, 1)) == 1  # by the pool's only connection
    duplicate.send(None)
    assert await second == Written(summary, is_repeat=True)
    assert await named(admin, "dup") == 1


async def test_a_duplicate_of_an_import_that_breaks_off_makes_the_templates_itself(
    imports: Imports, admin: Connection
) -> None:
    first_replica, second_replica = await imports(), await imports()
    source = Source().send(batch("taken over", request_id="taken over"))
    first = asyncio.create_task(first_replica.import_all(source))
    await source.until_waiting()
    second = asyncio.create_task(
        second_replica.import_all(Source().send(batch("taken over", request_id="taken over"), None))
    )
    await until_blocked(admin)
    first.cancel()
    assert (await second).is_repeat is False
    assert await named(admin, "taken over") == 1
