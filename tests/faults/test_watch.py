"""WatchTemplates on the whole service: what is told, in which order, and at what price."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import grpc
import pytest

from app.storage.postgres import Connection
from tests.faults.in_process import Served, served
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
