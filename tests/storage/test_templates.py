from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC
from urllib.parse import urlsplit

import pytest

from app.domain.errors import InvalidInputError, StorageUnavailableError, TemplateNotFoundError, VersionMismatchError
from app.domain.ports import Repository
from app.domain.template import MAX_BODY_CHARS, MAX_ID, MAX_NAME_CHARS, TemplateDraft
from app.storage.postgres import Connection, Database
from app.storage.templates import _CREATE, _DELETE, _LOAD, _PAGE, _UPDATE, _WARM_UP, LOAD_MARK, TemplateRepository
from tests.storage.conftest import OpenDatabase, wait_for

_LOADS = """
    SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
    WHERE strpos(query, $1) > 0 AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND userid = 'app'::regrole
"""
_IS_LOADING = "SELECT count(*) FROM pg_stat_activity WHERE strpos(query, $1) > 0 AND wait_event = 'PgSleep'"
_WAIT_FOR_A_LOCK = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND strpos(query, 'warm_up') > 0
      AND pid <> pg_backend_pid()
"""

OUTSIDE_BIGINT = [0, -1, -(2**63), 2**63, 2**64, 10**60]


def draft(name: str = "name", body: str = "body") -> TemplateDraft:
    return TemplateDraft(name, body)


def test_it_is_the_repository_that_the_domain_asks_for(repository: TemplateRepository) -> None:
    port: Repository = repository
    assert port is repository


async def test_a_template_is_read_as_it_was_written(repository: TemplateRepository) -> None:
    created = (
        await repository.create(draft("Ünïcode 漢字 🙂", "\r\n\t'; DROP TABLE templates; -- {{x}} \\ \x7f"))
    ).answer
    assert await repository.get(created.id) == created
    assert created.version == 1
    assert created.updated_at.tzinfo is UTC


async def test_the_largest_template_is_read_as_it_was_written(repository: TemplateRepository) -> None:
    created = (await repository.create(draft("🙂" * MAX_NAME_CHARS, "漢" * MAX_BODY_CHARS))).answer
    assert await repository.get(created.id) == created


async def test_an_id_that_no_template_has_is_not_found(repository: TemplateRepository) -> None:
    for call in (repository.get(MAX_ID), repository.update(MAX_ID, draft(), None), repository.delete(MAX_ID, None)):
        with pytest.raises(TemplateNotFoundError) as raised:
            await call
        assert raised.value.template_id == MAX_ID


@pytest.mark.parametrize("template_id", OUTSIDE_BIGINT)
async def test_an_id_that_no_template_can_have_is_refused_before_it_gets_to_the_driver(
    repository: TemplateRepository, template_id: int
) -> None:
    for call in (
        repository.get(template_id),
        repository.update(template_id, draft(), None),
        repository.delete(template_id, None),
    ):
        with pytest.raises(InvalidInputError):
            await call


async def test_an_update_replaces_all_and_raises_version_and_time(repository: TemplateRepository) -> None:
    before = (await repository.create(draft("old", "old"))).answer
    after = (await repository.update(before.id, draft("new", ""), None)).answer
    assert (after.name, after.body, after.version) == ("new", "", 2)
    assert after.updated_at > before.updated_at
    assert await repository.get(before.id) == after


async def test_a_time_of_update_rises_even_where_the_last_one_lies_in_the_future(
    repository: TemplateRepository, admin: Connection
) -> None:
    created = (await repository.create(draft())).answer
    future = await admin.fetchval(
        "UPDATE templates SET updated_at = now() + interval '1 hour' WHERE id = $1 RETURNING updated_at", created.id
    )
    assert (await repository.update(created.id, draft(), None)).answer.updated_at > future


async def test_a_deletion_has_a_version_above_all_that_the_template_had(repository: TemplateRepository) -> None:
    created = (await repository.create(draft())).answer
    await repository.update(created.id, draft(), None)
    assert (await repository.delete(created.id, frozenset({2}))).answer == 3
    with pytest.raises(TemplateNotFoundError):
        await repository.get(created.id)


@pytest.mark.parametrize("expected", [frozenset[int](), frozenset({2}), frozenset(OUTSIDE_BIGINT)])
async def test_a_write_that_expects_another_version_changes_nothing_and_says_the_current_one(
    repository: TemplateRepository, expected: frozenset[int]
) -> None:
    created = (await repository.create(draft())).answer
    for call in (repository.update(created.id, draft("lost"), expected), repository.delete(created.id, expected)):
        with pytest.raises(VersionMismatchError) as raised:
            await call
        assert (raised.value.template_id, raised.value.current) == (created.id, 1)
    assert await repository.get(created.id) == created


async def test_a_write_may_expect_any_of_several_versions(repository: TemplateRepository) -> None:
    created = (await repository.create(draft())).answer
    assert (await repository.update(created.id, draft(), frozenset({1, 7, 2**70}))).answer.version == 2
    assert (await repository.delete(created.id, frozenset({1, 2}))).answer == 3


async def test_pages_follow_each_other_without_gap_or_overlap(repository: TemplateRepository) -> None:
    first = await repository.page(0, 300)
    assert [template.id for template in first] == list(range(1, 301))
    second = await repository.page(300, 2)
    assert [template.id for template in second] == [301, 302]
    assert second[0] == await repository.get(301)


@pytest.mark.parametrize(("after_id", "limit"), [(MAX_ID, 1), (2**80, 1), (0, 0), (0, -5)])
async def test_a_page_beyond_the_end_or_of_no_length_is_empty(
    repository: TemplateRepository, after_id: int, limit: int
) -> None:
    assert await repository.page(after_id, limit) == []


async def test_a_page_may_start_and_end_outside_what_a_bigint_holds(repository: TemplateRepository) -> None:
    assert len(await repository.page(-(2**80), 2**80)) >= 1000


def test_only_the_load_query_carries_the_mark() -> None:
    assert LOAD_MARK in _LOAD
    assert not [query for query in (_CREATE, _UPDATE, _DELETE, _PAGE, _WARM_UP) if LOAD_MARK in query]


def test_the_warm_up_is_another_statement_also_where_aliases_make_none() -> None:
    """As they do in the statistics of PostgreSQL before 18."""
    assert _WARM_UP.replace("warm_up", LOAD_MARK).split() != _LOAD.split()


@pytest.mark.parametrize("delay_ms", [0, 1])
async def test_postgres_counts_the_loads_that_the_repository_counts(
    database: Database, admin: Connection, delay_ms: int
) -> None:
    counted: list[float] = []
    repository = TemplateRepository(database, delay_ms, counted.append)
    before = await admin.fetchval(_LOADS, LOAD_MARK)

    async def load(template_id: int) -> None:
        try:
            await repository.get(template_id)
        except TemplateNotFoundError:
            assert template_id > 1000

    await asyncio.gather(*(load(template_id) for template_id in range(991, 1021)))
    await repository.page(0, 10)
    created = (await repository.create(draft())).answer
    await repository.update(created.id, draft(), None)
    await repository.delete(created.id, None)
    assert await admin.fetchval(_LOADS, LOAD_MARK) - before == len(counted) == 30
    assert all(seconds > 0 for seconds in counted)


async def test_each_connection_is_warmed_up_and_none_of_it_counts_as_a_load(
    url: str, open_database: OpenDatabase, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []
    repository = TemplateRepository(await open_database(url, pool_min=3), 5_000, counted.append)
    before = await admin.fetchval(_LOADS, LOAD_MARK)

    async def all_wait() -> bool:
        return bool(await admin.fetchval(_WAIT_FOR_A_LOCK) == 3)

    monkeypatch.setattr("app.storage.templates.WARM_UP_TIMEOUT_S", 60.0)
    async with asyncio.TaskGroup() as group, admin.transaction():
        await admin.execute("LOCK TABLE templates")
        warming = group.create_task(repository.warm_up(3))
        await wait_for(all_wait)
        assert not warming.done()
    assert await admin.fetchval(_LOADS, LOAD_MARK) == before
    assert counted == []


async def test_what_cannot_be_warmed_up_stays_as_it_is(
    empty_database: Callable[[], str], open_database: OpenDatabase, admin: Connection
) -> None:
    unmigrated = TemplateRepository(await open_database(empty_database(), pool_min=2))
    await unmigrated.warm_up(2)
    database = await open_database(empty_database(), pool_min=2)
    await database.close(2.0)
    await TemplateRepository(database).warm_up(2)


async def test_whom_the_database_lets_read_nothing_it_warms_up_nothing(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    await admin.execute("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    stranger = urlsplit(url)._replace(netloc=f"stranger:stranger@{urlsplit(url).netloc.rpartition('@')[2]}").geturl()
    try:
        database = await open_database(stranger, pool_min=2)
        await TemplateRepository(database).warm_up(2)
        await database.close(2.0)
    finally:
        await admin.execute("DROP ROLE stranger")


async def test_a_start_does_not_wait_for_a_lock(
    url: str, open_database: OpenDatabase, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.templates.WARM_UP_TIMEOUT_S", 0.05)
    repository = TemplateRepository(await open_database(url, pool_min=2))
    async with admin.transaction():
        await admin.execute("LOCK TABLE templates")
        async with asyncio.timeout(30.0):
            await repository.warm_up(2)


async def test_the_delay_comes_before_the_answer_found_or_not(database: Database) -> None:
    counted: list[float] = []
    repository = TemplateRepository(database, 80, counted.append)
    started = time.perf_counter()
    await repository.get(1)
    with pytest.raises(TemplateNotFoundError):
        await repository.get(MAX_ID)
    assert time.perf_counter() - started >= 0.16
    assert all(seconds >= 0.08 for seconds in counted)
    assert sum(counted) <= time.perf_counter() - started


async def test_a_slow_load_answers_what_was_true_when_it_began(
    database: Database, repository: TemplateRepository, admin: Connection
) -> None:
    created = (await repository.create(draft("before"))).answer
    load = asyncio.create_task(TemplateRepository(database, 2_000).get(created.id))

    async def is_loading() -> bool:
        return bool(await admin.fetchval(_IS_LOADING, LOAD_MARK))

    await wait_for(is_loading)
    await repository.update(created.id, draft("after"), None)
    assert not load.done()
    assert await load == created


async def test_a_load_that_postgres_did_not_answer_is_not_counted(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    counted: list[float] = []
    repository = TemplateRepository(await open_database(url, statement_timeout_s=0.05), 5_000, counted.append)
    before = await admin.fetchval(_LOADS, LOAD_MARK)
    with pytest.raises(StorageUnavailableError):
        await repository.get(1)
    assert counted == []
    assert await admin.fetchval(_LOADS, LOAD_MARK) == before
