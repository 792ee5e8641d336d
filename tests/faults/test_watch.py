"""WatchTemplates on the whole service: what is told, in which order, and at what price."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import grpc
import pytest

from app.embedded.stack import EmbeddedStack
from app.storage.postgres import Connection
from tests.faults.in_process import Served, served
from tests.faults.metrics import scrape
from tests.faults.polling import until
from tests.faults.watchers import Told, Watcher, channel_to

MODES = ["none", "mutex", "singleflight", "fleet", "full"]

Start = Callable[..., Awaitable[tuple[Served, grpc.aio.Channel]]]

ids = itertools.count(1)
"""Seeded ids that no test of this module has used."""


@pytest.fixture
async def start(database_url: str, redis_url: str) -> AsyncIterator[Start]:
    """Call it with settings for a running service and a connection to it."""
    async with AsyncExitStack() as services:

        async def make(**settings: object) -> tuple[Served, grpc.aio.Channel]:
            app = await services.enter_async_context(served(database_url, redis_url, **settings))
            return app, await services.enter_async_context(channel_to(app.grpc_port))

        yield make


async def rename(admin: Connection, template_id: int, name: str) -> int:
    """Past the service. The version that it has now."""
    version: int = await admin.fetchval(
        "UPDATE templates SET name = $2 WHERE id = $1 RETURNING version", template_id, name
    )
    return version


@pytest.mark.parametrize("mode", MODES)
async def test_the_state_now_is_told_and_then_each_change_in_every_mode(
    start: Start, admin: Connection, mode: str
) -> None:
    """In modes whose cache hears of no change, too, and though a tier holds the value from before."""
    app, channel = await start(mode=mode)
    key = next(ids)
    await app.runtime.service.read(key)
    before = await rename(admin, key, "before the watch")
    watcher = Watcher(channel, [key])
    first = (await watcher.until(before))[-1]
    assert first == Told(key, before, "before the watch", first.skipped)
    for number in range(3):
        version = await rename(admin, key, f"name {number}")
        assert await watcher.next() == Told(key, version, f"name {number}", 0)


async def test_deletion_and_making_anew_are_told_with_versions_that_rise(start: Start, admin: Connection) -> None:
    _, channel = await start()
    key = 10**9 + next(ids)
    watcher = Watcher(channel, [key])
    assert await watcher.next() == Told(key, 0, None, 0)
    make = "INSERT INTO templates (id, name, body) OVERRIDING SYSTEM VALUE VALUES ($1, $2, '')"
    await admin.execute(make, key, "first")
    assert await watcher.next() == Told(key, 1, "first", 0)
    await admin.execute("DELETE FROM templates WHERE id = $1", key)
    assert await watcher.next() == Told(key, 2, None, 0)
    await admin.execute(make, key, "second")
    assert await watcher.next() == Told(key, 3, "second", 0)


async def test_a_change_costs_one_load_for_all_who_watch_and_none_is_told_an_older_one_later(
    start: Start, admin: Connection, loads: Callable[[], Awaitable[int]]
) -> None:
    app, channel = await start()
    key, before = next(ids), await loads()
    async with AsyncExitStack() as channels:
        connections = [channel, await channels.enter_async_context(channel_to(app.grpc_port))]
        watchers = [Watcher(connections[number % 2], [key]) for number in range(300)]
        first = await asyncio.gather(*(watcher.next() for watcher in watchers))
        assert len({state.version for state in first}) == 1
        assert await loads() - before == 1
        version = await rename(admin, key, "for all")
        heard = await asyncio.gather(*(watcher.next() for watcher in watchers))
        assert set(heard) == {Told(key, version, "for all", 0)}
        assert await loads() - before == 2
        last = [await rename(admin, key, f"name {number}") for number in range(20)][-1]
        for told in await asyncio.gather(*(watcher.until(last) for watcher in watchers)):
            versions = [state.version for state in told]
            assert versions == sorted(set(versions))
            assert len(told) + sum(state.skipped for state in told) == 20
        for watcher in watchers:
            watcher.call.cancel()
    scraped = await scrape(app.http_url)
    await until(lambda: nobody_watches(app), "no watch is open")
    assert scraped("watch_told_total") >= 600


async def nobody_watches(app: Served) -> bool:
    scraped = await scrape(app.http_url)
    return (scraped("watch_streams"), scraped("watch_ids")) == (0, 0)


async def test_a_thousand_templates_can_be_watched_and_any_of_them_changes(start: Start, admin: Connection) -> None:
    _, channel = await start()
    many = range(20_001, 21_001)
    watcher = Watcher(channel, many)
    assert sorted(state.id for state in await watcher.take(1_000)) == list(many)
    await admin.execute(
        "INSERT INTO templates (id, name, body) OVERRIDING SYSTEM VALUE"
        " SELECT id, 'made', '' FROM unnest($1::bigint[]) AS id",
        list(many),
    )
    assert sorted(await watcher.take(1_000)) == [Told(key, 1, "made", 0) for key in many]
    await admin.execute("DELETE FROM templates WHERE id = ANY ($1)", [20_500, 20_600])
    assert sorted(await watcher.take(2)) == [Told(20_500, 2, None, 0), Told(20_600, 2, None, 0)]


async def test_watchers_hear_of_writes_through_another_replica_and_of_what_a_crowd_of_ids_does(
    start: Start, admin: Connection
) -> None:
    """More than 1,000 ids in one statement are announced as "look in the table"."""
    (writing, _), (_, channel) = await start(), await start()
    key = next(ids)
    watcher = Watcher(channel, [key])
    before = await watcher.next()
    await writing.runtime.service.delete(key)
    assert await watcher.next() == Told(key, before.version + 1, None, 0)
    await admin.execute(
        "INSERT INTO templates (id, name, body) OVERRIDING SYSTEM VALUE"
        " SELECT id, 'crowd', '' FROM generate_series(30001, 33000) AS id UNION ALL SELECT $1, 'again', ''",
        key,
    )
    assert await watcher.next() == Told(key, before.version + 2, "again", 0)


@pytest.mark.parametrize("settings", [{}, {"mode": "fleet"}], ids=["full", "fleet"])
async def test_what_changes_while_the_announcements_are_cut_is_told_after(
    start: Start, admin: Connection, settings: dict[str, str]
) -> None:
    _, channel = await start(**settings)
    key, other = next(ids), next(ids)
    watcher = Watcher(channel, [key, other])
    await watcher.take(2)
    version = await rename(admin, key, "kept")
    await watcher.until(version, key)
    for number in range(3):
        async with admin.transaction():
            # The commit comes after the cut, so that it is told by the look at the table or not at all.
            version = await rename(admin, key, f"in gap {number}")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'template-changes'"
            )
        assert (await watcher.until(version, key))[-1].name == f"in gap {number}"


@pytest.fixture
async def second_admin(stack: EmbeddedStack, database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(stack.postgres.url("postgres", database_url.rpartition("/")[2]))
    yield connection
    await connection.close(timeout=2.0)


async def test_a_change_that_cannot_be_loaded_is_told_once_it_can(
    start: Start, admin: Connection, second_admin: Connection
) -> None:
    key, failures = next(ids), "watch_load_failures_total"
    # From Redis it is had, however short a load's time is.
    await (await start(redis_timeout_s=5))[0].runtime.service.read(key)
    app, channel = await start(database_statement_timeout_s=0.5, redis_timeout_s=5)
    watcher = Watcher(channel, [key])
    await watcher.next()
    async with second_admin.transaction():
        async with admin.transaction():
            version = await rename(admin, key, "locked away")
            # It waits behind the change, and from its commit on no load gets through.
            locking = asyncio.ensure_future(second_admin.execute("LOCK TABLE templates IN ACCESS EXCLUSIVE MODE"))
            await until(lambda: waits_for_a_lock(admin), "the lock is asked for")
        await locking

        async def has_failed() -> bool:
            return (await scrape(app.http_url))(failures) >= 3

        await until(has_failed, "loads fail")
    assert await watcher.next() == Told(key, version, "locked away", 0)


async def waits_for_a_lock(admin: Connection) -> bool:
    found: int = await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return found > 0


async def test_while_the_database_is_away_watches_stay_and_new_ones_are_refused_and_after_it_all_is_told(
    own_stack: EmbeddedStack,
) -> None:
    """The cache would have the value still, but nobody could say when it changes."""
    postgres = own_stack.postgres
    async with (
        served(postgres.url("app"), own_stack.redis.url(), database_migrate=True) as app,
        channel_to(app.grpc_port) as channel,
    ):
        watcher = Watcher(channel, [1])
        first = await watcher.next()
        await asyncio.to_thread(postgres.kill)

        async def is_lost() -> bool:
            return (await scrape(app.http_url))("cache_listen_up") == 0

        await until(is_lost, "the loss is noticed")
        refused = await Watcher(channel, [1]).ended()
        assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAVAILABLE, "the database is unavailable")
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(postgres.sql, "UPDATE templates SET name = 'back' WHERE id = 1")
        assert await watcher.next() == Told(1, first.version + 1, "back", 0)
