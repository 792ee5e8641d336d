"""SyncTemplates on the whole service, by a real client."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import grpc
import pytest

from app.proto.template.v1.template_pb2 import SyncTemplatesRequest
from app.storage.postgres import Connection
from tests.faults.held import HELD, HeldLoads
from tests.faults.in_process import Served, served
from tests.faults.metrics import scrape
from tests.faults.polling import until
from tests.faults.watchers import Syncer, Told, channel_to

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


async def nobody_watches(app: Served) -> bool:
    scraped = await scrape(app.http_url)
    return (scraped("watch_streams"), scraped("watch_ids")) == (0, 0)


async def test_what_is_at_hand_is_answered_before_what_must_be_loaded(start: Start, held: HeldLoads) -> None:
    app, channel = await start(**HELD)
    cached, cold = next(ids), next(ids)
    await app.runtime.service.read(cached)
    sync = Syncer(channel)
    async with held:
        await sync.get(1, cold)
        await sync.get(2, cached)
        answers = [await sync.next()]
    answers.append(await sync.next())
    assert [answer and (answer.tag, answer.state.state.id) for answer in answers] == [(2, cached), (1, cold)]


async def test_subscriptions_and_gets_share_a_stream_from_done_to_done(start: Start, admin: Connection) -> None:
    app, channel = await start()
    first, second, gone = next(ids), next(ids), 10**12
    sync = Syncer(channel)
    await sync.subscribe(1, first, second)
    await sync.done(1)
    states = {told.id: told for told in [await sync.news(), await sync.news()]}
    version = await rename(admin, second, "changed")
    assert await sync.news() == Told(second, version, "changed", version - states[second].version - 1)
    await sync.get(2, gone)
    absent = await sync.next()
    assert absent is not None
    assert (absent.tag, absent.state.state.id, absent.state.state.version) == (2, gone, 0)
    assert not absent.state.state.HasField("template")
    await sync.subscribe(3, second)
    await sync.done(3)
    assert await sync.news() == Told(second, version, "changed", 0)
    await sync.unsubscribe(4, first)
    await sync.done(4)
    await rename(admin, first, "unheard")
    version = await rename(admin, second, "heard")
    assert await sync.news() == Told(second, version, "heard", 0)
    await sync.call.done_writing()
    assert await sync.next() is None
    assert await sync.call.code() is grpc.StatusCode.OK
    await until(lambda: nobody_watches(app), "no watch is open")


async def test_what_is_wrong_with_one_request_leaves_the_stream_as_it_is(start: Start) -> None:
    _, channel = await start()
    sync = Syncer(channel)
    await sync.get(1, 0)
    await sync.send(SyncTemplatesRequest(tag=2))
    await sync.subscribe(3, *range(1, 1_002))
    await sync.get(4, next(ids))
    answers = {}
    for _ in range(4):
        answer = await sync.next()
        assert answer is not None
        answers[answer.tag] = answer
    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [answers[tag].error.code for tag in (1, 2, 3)] == [invalid] * 3
    assert answers[4].state.state.template.id > 0


@pytest.mark.parametrize("end", ["cancel", "cut"])
async def test_a_caller_that_leaves_with_gets_and_subscriptions_under_way_leaves_nothing(
    start: Start, end: str
) -> None:
    app, _ = await start(**HELD, load_delay_ms=30_000)
    async with channel_to(app.grpc_port) as channel:
        sync = Syncer(channel)
        await sync.subscribe(1, next(ids))
        await sync.done(1)
        for tag in range(2, 6):
            await sync.get(tag, next(ids))
        await until(lambda: loads_wait(app), "the loads run")
        if end == "cancel":
            sync.call.cancel()
            await until(lambda: nobody_watches(app), "no watch is open")
    await until(lambda: nobody_watches(app), "no watch is open")
    await until(lambda: no_load(app), "no load runs", 15.0)


async def loads_wait(app: Served) -> bool:
    return (await scrape(app.http_url))("bulkhead_in_use") >= 5


async def no_load(app: Served) -> bool:
    return (await scrape(app.http_url))("bulkhead_in_use") == 0


async def test_one_who_asks_and_never_reads_is_read_no_further_and_others_are_served(start: Start) -> None:
    app, channel = await start()
    keys = list(itertools.islice(ids, 5))
    sync = Syncer(channel)
    asked = 0

    async def ask() -> None:
        nonlocal asked
        request = SyncTemplatesRequest(tag=1, subscribe=SyncTemplatesRequest.Subscribe(ids=range(1, 1_001)))
        while True:
            await sync.call.write(request)
            asked += 1

    asking = asyncio.ensure_future(ask())

    async def is_stuck() -> bool:
        before = asked
        await asyncio.sleep(0.3)
        return 0 < asked == before

    await until(is_stuck, "it is read no further", 60.0)
    other = Syncer(channel)
    for tag, key in enumerate(keys):
        await other.get(tag, key)
        answer = await other.next()
        assert answer is not None
        assert (answer.tag, answer.state.state.id) == (tag, key)
    asking.cancel()
    sync.call.cancel()
    other.call.cancel()
    await until(lambda: nobody_watches(app), "no watch is open")
