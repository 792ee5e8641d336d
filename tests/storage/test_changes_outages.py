"""The feed of changes when the server hangs, dies, is started again or is replaced by another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import asyncpg

from app.embedded.postgres import EmbeddedPostgres
from app.storage.changes import Change, ChangeFeed
from app.storage.migrate import migrate
from tests.storage.conftest import MakeFeed, next_beat, wait_for
from tests.storage.recording_listener import CAUGHT_UP, EVERYTHING, LOST, RecordingListener
from tests.storage.relay import Relay
from tests.ticks import Ticks

_UPDATE = "UPDATE templates SET body = 'x' WHERE id = $1"


async def test_a_hung_server_is_found_and_its_return_too(
    own_postgres: Callable[..., EmbeddedPostgres], make_feed: MakeFeed, listener: RecordingListener
) -> None:
    postgres, url = await _own_server(own_postgres)
    feed = make_feed(url, heartbeat_s=0.5, answer_timeout_s=1.0)
    feed.add(listener)
    await feed.start()
    listener.take()
    await asyncio.to_thread(postgres.suspend)
    async with Ticks() as ticks:
        await listener.until_told(LOST)
    print(f"a hung server found after {ticks.seconds:.2f} s")
    assert ticks.seconds < 1.5 + 0.3
    await asyncio.sleep(1.0)
    await asyncio.to_thread(postgres.resume)
    await _write(url, 1)
    await listener.until(lambda: CAUGHT_UP in listener.told and Change(1, 2) in listener.told)
    assert listener.told[0] == LOST
    assert EVERYTHING not in listener.told


async def test_a_hung_server_holds_up_neither_start_nor_close(
    own_postgres: Callable[..., EmbeddedPostgres], listener: RecordingListener
) -> None:
    postgres, url = await _own_server(own_postgres)
    up, late = ChangeFeed(url, connect_timeout_s=30.0), ChangeFeed(url, connect_timeout_s=0.3)
    await up.start()
    await asyncio.to_thread(postgres.suspend)
    try:
        async with Ticks() as starting:
            await late.start()
        assert starting.seconds < 0.8
        async with Ticks() as closing:
            await asyncio.gather(up.aclose(), late.aclose())
        assert closing.seconds < 3
    finally:
        await asyncio.to_thread(postgres.resume)


async def test_a_server_killed_and_started_again_has_lost_nothing(
    own_postgres: Callable[..., EmbeddedPostgres], make_feed: MakeFeed, listener: RecordingListener
) -> None:
    """It is gone for seconds, and writes land before the feed is back."""
    postgres, url = await _own_server(own_postgres)
    feed = make_feed(url)
    feed.add(listener)
    await feed.start()
    await asyncio.to_thread(postgres.kill)
    await listener.until_told(LOST, CAUGHT_UP, LOST)
    await asyncio.sleep(2.0)
    listener.take()
    await asyncio.to_thread(postgres.start)
    await _write(url, 1)
    await _write(url, 1)
    started = time.perf_counter()
    await listener.until_told(Change(1, 3))
    print(f"told {time.perf_counter() - started:.2f} s after the server answered")
    assert EVERYTHING not in listener.told


async def test_transaction_ids_given_again_after_a_crash_hide_no_change(
    own_postgres: Callable[..., EmbeddedPostgres], make_feed: MakeFeed, listener: RecordingListener
) -> None:
    """Transactions that were rolled back before the crash leave nothing that lasts: their ids are given again, to
    changes made before the feed is back, and the feed's last snapshot from before the crash must not take them for
    shown."""
    postgres, url = await _own_server(own_postgres, {"wal_writer_delay": "10s"})
    async with Relay(postgres.port) as relay:
        feed = make_feed(url.replace(f":{postgres.port}/", f":{relay.port}/"), heartbeat_s=0.01)
        feed.add(listener)
        await feed.start()
        await _take_transaction_ids(url, 200)
        await wait_for(next_beat(feed))
        relay.stall()
        await asyncio.to_thread(postgres.kill)
        await listener.until_told(LOST, CAUGHT_UP, LOST)
        await asyncio.to_thread(postgres.start)
        await _write(url, 5)
        await _take_transaction_ids(url, 1_000)
        listener.take()
        relay.answer()
        await listener.until_told(CAUGHT_UP)
        assert listener.take() == [Change(5, 2), CAUGHT_UP]
        await feed.aclose()


async def test_another_server_in_its_place_is_everything_changed(
    own_postgres: Callable[..., EmbeddedPostgres], make_feed: MakeFeed, listener: RecordingListener
) -> None:
    first, url = await _own_server(own_postgres)
    feed = make_feed(url)
    feed.add(listener)
    await feed.start()
    port = first.port
    await asyncio.to_thread(first.stop)
    second = await asyncio.to_thread(own_postgres, None, port)
    await migrate(second.url("app"))
    await listener.until_told(LOST, CAUGHT_UP, LOST, EVERYTHING, CAUGHT_UP)
    assert listener.take() == [LOST, CAUGHT_UP, LOST, EVERYTHING, CAUGHT_UP]
    await _write(url, 1)
    await listener.until_told(Change(1, 2))


async def _own_server(
    own_postgres: Callable[..., EmbeddedPostgres], options: dict[str, str] | None = None
) -> tuple[EmbeddedPostgres, str]:
    postgres = await asyncio.to_thread(own_postgres, None, 0, options)
    url = postgres.url("app")
    await migrate(url)
    return postgres, url


async def _take_transaction_ids(url: str, number: int) -> None:
    """In transactions that are rolled back."""
    connection = await asyncpg.connect(url)
    try:
        for _ in range(number):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SELECT pg_current_xact_id()")
            await transaction.rollback()
    finally:
        await connection.close(timeout=2.0)


async def _write(url: str, template_id: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_UPDATE, template_id)
    finally:
        await connection.close(timeout=2.0)
