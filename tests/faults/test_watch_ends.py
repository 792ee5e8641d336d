"""How watches end: callers that leave at any stage, never read or ask for too much, and a service that stops."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from app.storage.postgres import Connection
from app.storage.templates import LOAD_MARK
from tests.faults.held import HELD
from tests.faults.in_process import Served, served
from tests.faults.metrics import scrape
from tests.faults.polling import until
from tests.faults.watchers import Syncer, Told, Watcher, channel_to

LONG_MS = 20_000
"""Longer than a load that nobody waits for any more is looked for."""
DEADLINE_S = 6.0
"""Of a call that is at its stage by then, on a busy machine, too."""
Start = Callable[..., Awaitable[Served]]
Leave = Callable[[Any, grpc.aio.Channel], Awaitable[None]]

ids = itertools.count(1)
"""Seeded ids that no test of this module has used."""


@pytest.fixture
async def start(database_url: str, redis_url: str) -> AsyncIterator[Start]:
    """Call it with settings for a running service, which is left with no task that it did not have at its start."""
    async with AsyncExitStack() as services:
        at_start: set[asyncio.Task[object]] = set()

        async def make(**settings: object) -> Served:
            app = await services.enter_async_context(served(database_url, redis_url, **settings))
            at_start.update(asyncio.all_tasks())
            return app

        yield make
        own = asyncio.current_task()

        def left() -> list[asyncio.Task[object]]:
            # gRPC waits for the next call in a task, a new one after each call.
            return [t for t in asyncio.all_tasks() - at_start - {own} if "AioServer._request_" not in repr(t)]

        await until(lambda: not left(), "no task is left", 5.0)


async def cancel(call: Any, _channel: grpc.aio.Channel) -> None:
    call.cancel()


async def cut(_call: Any, channel: grpc.aio.Channel) -> None:
    await channel.close()


async def overstay(call: Any, _channel: grpc.aio.Channel) -> None:
    """The call has a deadline where this is how it ends."""
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def nothing_is_left(app: Served, admin: Connection) -> None:
    """No watch, no load that runs; and the service goes on."""

    async def holds() -> bool:
        scraped = await scrape(app.http_url)
        return (scraped("watch_streams"), scraped("watch_ids"), await loads_run(admin)) == (0, 0, 0)

    await until(holds, "no watch is open and no load runs")


async def loads_run(admin: Connection) -> int:
    found: int = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
        " AND pid <> pg_backend_pid() AND position($1 IN query) > 0",
        LOAD_MARK,
    )
    return found


async def loads_are(admin: Connection, count: int) -> bool:
    return await loads_run(admin) == count


LARGE = 200
"""So many templates are."""


@pytest.mark.parametrize("leave", [cancel, cut], ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("stage", ["no answer yet", "idle", "a change is loaded"])
async def test_a_caller_that_leaves_at_any_stage_leaves_nothing(
    start: Start, admin: Connection, leave: Leave, stage: str
) -> None:
    key = next(ids)
    if stage == "a change is loaded":
        await (await start(**HELD)).runtime.service.read(key)  # from Redis it is had at once
    app = await start(**HELD, load_delay_ms=LONG_MS if stage != "idle" else 0)
    async with channel_to(app.grpc_port) as channel:
        watcher = Watcher(channel, [key])
        if stage != "no answer yet":
            await watcher.next()
        if stage == "a change is loaded":
            await admin.execute("UPDATE templates SET name = 'changed' WHERE id = $1", key)
        if stage != "idle":
            await until(lambda: loads_are(admin, 1), "the load runs")
        await leave(watcher.call, channel)
    await nothing_is_left(app, admin)


async def test_callers_whose_deadline_passes_at_any_stage_leave_nothing(start: Start, admin: Connection) -> None:
    """One at each of the stages above, at once."""
    idle, changed, cold = itertools.islice(ids, 3)
    other = await start(**HELD)
    for key in (idle, changed):
        await other.runtime.service.read(key)
    app = await start(**HELD, load_delay_ms=LONG_MS)
    async with channel_to(app.grpc_port) as channel:
        watchers = [Watcher(channel, [key], DEADLINE_S) for key in (idle, changed, cold)]
        for watcher in watchers[:2]:
            await watcher.next()
        await admin.execute("UPDATE templates SET name = 'changed' WHERE id = $1", changed)
        await until(lambda: loads_are(admin, 2), "both loads run")
        for watcher in watchers:
            await overstay(watcher.call, channel)
    await nothing_is_left(app, admin)


async def large(admin: Connection, count: int) -> list[int]:
    """So many templates of 60 KB that don't compress: far more than is buffered on the way to one who doesn't read."""
    many = list(itertools.islice(ids, count))
    body = secrets.token_hex(30_000)
    await admin.execute("UPDATE templates SET body = $2 WHERE id = ANY ($1)", many, body)
    return many


async def is_blocked(app: Served) -> bool:
    """Whether nothing more is written to watchers."""
    before = (await scrape(app.http_url))("watch_told_total")
    await asyncio.sleep(0.3)
    return 0 < before == (await scrape(app.http_url))("watch_told_total")


@pytest.mark.parametrize("leave", [cancel, cut, overstay], ids=lambda leave: leave.__name__)
async def test_a_caller_that_leaves_while_a_write_to_it_waits_leaves_nothing(
    start: Start, admin: Connection, leave: Leave
) -> None:
    app = await start()
    many = await large(admin, LARGE)
    async with channel_to(app.grpc_port) as channel:
        watcher = Watcher(channel, many, DEADLINE_S if leave is overstay else None)
        await until(lambda: is_blocked(app), "the write waits")
        assert (await scrape(app.http_url))("watch_told_total") < len(many)
        await leave(watcher.call, channel)
    await nothing_is_left(app, admin)


async def test_one_that_does_not_read_keeps_nobody_waiting_and_gets_the_newest_when_it_reads(
    start: Start, admin: Connection
) -> None:
    app = await start()
    many = await large(admin, LARGE)
    async with channel_to(app.grpc_port) as channel, channel_to(app.grpc_port) as other:
        sleeper = Watcher(channel, many)
        await until(lambda: is_blocked(app), "the write waits")
        reader = Watcher(other, many[-1:])
        first = await reader.next()
        for number in range(1, 6):
            await admin.execute("UPDATE templates SET name = $2 WHERE id = ANY ($1)", many, f"name {number}")
            assert await reader.next() == Told(many[-1], first.version + number, f"name {number}", 0)
        newest: dict[int, Told] = {}
        count = skipped = 0
        while len(newest) < len(many) or any(told.name != "name 5" for told in newest.values()):
            told = await sleeper.next()
            assert told.id not in newest or newest[told.id].version < told.version
            newest[told.id] = told
            count, skipped = count + 1, skipped + told.skipped
        assert count < 3 * len(many)
        assert skipped > 0
        assert (await scrape(app.http_url))("watch_versions_skipped_total") == skipped
        reader.call.cancel()
        sleeper.call.cancel()
    await nothing_is_left(app, admin)


async def test_a_drain_ends_watches_and_conversations_at_once_with_unavailable(start: Start, admin: Connection) -> None:
    app = await start()
    async with channel_to(app.grpc_port) as channel:
        watcher, idle, busy = Watcher(channel, [next(ids)]), Syncer(channel), Syncer(channel)
        await watcher.next()
        await idle.get(1, next(ids))
        await idle.next()
        await busy.subscribe(1, next(ids))
        await busy.done(1)
        await busy.news()
        drain = asyncio.ensure_future(app.runtime.grpc.drain(60))
        for call in (watcher.call, idle.call, busy.call):
            assert await asyncio.wait_for(call.code(), 20) is grpc.StatusCode.UNAVAILABLE
            assert await call.details() == "the service is about to stop: ask again"
        await asyncio.wait_for(drain, 20)
    await nothing_is_left(app, admin)


async def test_a_drain_does_not_wait_past_its_limit_for_one_that_never_reads(start: Start, admin: Connection) -> None:
    app = await start()
    many = await large(admin, LARGE)
    async with channel_to(app.grpc_port) as channel:
        watcher = Watcher(channel, many)
        await until(lambda: is_blocked(app), "the write waits")
        await asyncio.wait_for(app.runtime.grpc.drain(0.5), 20)
        await watcher.ended()
    await nothing_is_left(app, admin)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ([], "ids: must be 1 to 1000 different ones, are 0"),
        (range(1, 1_002), "ids: must be 1 to 1000 different ones, are 1001"),
        ([1, 0], "ids[1]: must be a whole number from 1 to 9223372036854775807"),
    ],
    ids=["none", "too many", "impossible"],
)
async def test_ids_that_cannot_be_watched_end_the_call_with_what_is_wrong(
    start: Start, admin: Connection, asked: list[int], text: str
) -> None:
    app = await start()
    async with channel_to(app.grpc_port) as channel:
        error = await Watcher(channel, asked).ended()
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)
        await nothing_is_left(app, admin)
        assert (await Watcher(channel, [1]).next()).id == 1


async def test_more_watches_than_are_taken_are_refused_and_one_that_ends_makes_room(start: Start) -> None:
    app = await start(watch_max_streams=2, watch_max_ids=10)
    async with channel_to(app.grpc_port) as channel:
        first, second = Watcher(channel, [1]), Watcher(channel, [2])
        await first.next()
        await second.next()
        error = await Watcher(channel, [3]).ended()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "too many watches: this process takes 2"
        second.call.cancel()
        await until(lambda: streams(app, 1), "the watch is closed")
        error = await Watcher(channel, range(1, 11)).ended()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "too many ids are watched: this process takes 10"
        assert sorted(told.id for told in await Watcher(channel, range(1, 10)).take(9)) == list(range(1, 10))
        assert (await scrape(app.http_url))("watch_rejections_total") == 2


async def streams(app: Served, count: int) -> bool:
    return (await scrape(app.http_url))("watch_streams") == count
