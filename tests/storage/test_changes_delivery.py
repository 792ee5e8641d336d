"""The feed of changes when what the server says is late, or never comes: what was shown is not taken for told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.embedded.stack import EmbeddedStack
from app.storage.changes import Change
from app.storage.postgres import Connection
from tests.storage.conftest import MakeFeed, next_beat, wait_for
from tests.storage.message_relay import MessageRelay
from tests.storage.recording_listener import CAUGHT_UP, LOST, RecordingListener
from tests.ticks import Ticks

_UPDATE = "UPDATE templates SET body = 'x' WHERE id = $1"
_NOTIFICATION, _READY = b"A", b"Z"


@pytest.fixture
def url(fresh_database: Callable[[], str]) -> str:
    """A migrated database of the test's own."""
    return fresh_database()


async def test_a_commit_that_was_visible_but_not_yet_delivered_when_the_connection_died_is_told(
    stack: EmbeddedStack, url: str, make_feed: MakeFeed, listener: RecordingListener, writer: Connection
) -> None:
    """The heartbeats' answers, with snapshots that show the commit, reach the feed, and its notification does not."""
    shown: list[bytes] = []

    async with MessageRelay(stack.postgres.port) as relay:
        through = url.replace(f":{stack.postgres.port}/", f":{relay.port}/") + "?sslmode=disable"
        feed = make_feed(through, heartbeat_s=0.02, answer_timeout_s=0.3)
        feed.add(listener)
        await feed.start()
        listener.take()

        def without_notifications(message: bytes) -> bool:
            if message[:1] == b"D":
                shown.append(message)
            return message[:1] != _NOTIFICATION

        relay.passes = without_notifications
        await writer.execute(_UPDATE, 20)
        xid = await writer.fetchval("SELECT xid::text FROM template_changes WHERE id = 20")

        async def seen() -> bool:
            # The text form of a snapshot begins with its xmin: all below are shown.
            return any(int(row[11:].split(b":")[0]) > int(xid) for row in shown)

        await wait_for(seen)
        relay.passes = lambda _message: True
        relay.cut()
        await listener.until_told(LOST, Change(20, 2), CAUGHT_UP)
        assert listener.take() == [LOST, Change(20, 2), CAUGHT_UP]
        await feed.aclose()


async def test_notifications_that_no_longer_come_are_missed_by_the_heartbeat(
    stack: EmbeddedStack, url: str, make_feed: MakeFeed, listener: RecordingListener, writer: Connection
) -> None:
    """Queries are answered, as they are behind a pooler that shares connections by transaction."""
    async with MessageRelay(stack.postgres.port) as relay:
        through = url.replace(f":{stack.postgres.port}/", f":{relay.port}/") + "?sslmode=disable"
        feed = make_feed(through, heartbeat_s=0.02, answer_timeout_s=0.2)
        feed.add(listener)
        await feed.start()
        relay.passes = lambda message: message[:1] != _NOTIFICATION
        async with Ticks() as ticks:
            await listener.until_told(CAUGHT_UP, LOST)
        assert ticks.seconds < 1.0
        await writer.execute(_UPDATE, 21)
        await asyncio.sleep(0.5)
        assert not feed.is_up
        relay.passes = lambda _message: True
        await listener.until_told(CAUGHT_UP, LOST, Change(21, 2), CAUGHT_UP)
        await feed.aclose()


async def test_an_announcement_to_look_in_the_table_is_made_good_when_the_connection_dies_before_the_answer(
    stack: EmbeddedStack, url: str, make_feed: MakeFeed, listener: RecordingListener, writer: Connection
) -> None:
    """ "*" has come, the query it causes is never answered."""
    async with MessageRelay(stack.postgres.port) as relay:
        through = url.replace(f":{stack.postgres.port}/", f":{relay.port}/") + "?sslmode=disable"
        feed = make_feed(through, answer_timeout_s=0.3)
        feed.add(listener)
        await feed.start()
        listener.take()
        relay.passes = lambda message: message[:1] == _NOTIFICATION
        await writer.execute(
            "INSERT INTO templates (id, name, body) SELECT n, 'n', '' FROM generate_series(50001, 51500) AS n"
        )
        await listener.until_told(LOST)
        relay.passes = lambda _message: True
        await listener.until_told(LOST, CAUGHT_UP)
        assert listener.told[0] == LOST
        assert set(listener.take()[1:-1]) == {Change(n, 1) for n in range(50_001, 51_501)}
        await feed.aclose()


async def test_an_announcement_to_look_in_the_table_that_comes_with_a_heartbeat_is_made_good_too(
    stack: EmbeddedStack, url: str, make_feed: MakeFeed, listener: RecordingListener, writer: Connection
) -> None:
    """ "*" and the answer to a heartbeat asked after it reach the feed together, and then the connection is silent."""
    async with MessageRelay(stack.postgres.port) as relay:
        through = url.replace(f":{stack.postgres.port}/", f":{relay.port}/") + "?sslmode=disable"
        feed = make_feed(through, heartbeat_s=0.5, answer_timeout_s=1.5)
        feed.add(listener)
        await feed.start()
        listener.take()
        insert = writer.transaction()
        await insert.start()
        await writer.execute(
            "INSERT INTO templates (id, name, body) SELECT n, 'n', '' FROM generate_series(50001, 51500) AS n"
        )
        # None is asked for while the INSERT is committed: it would not be answered in time.
        await wait_for(next_beat(feed))
        relay.hold()
        await insert.commit()
        announced_at = await writer.fetchval("SELECT clock_timestamp()")

        async def has_beaten() -> bool:
            return bool(
                await writer.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'template-changes' "
                    "AND datname = current_database() AND query_start > $1 AND state = 'idle'",
                    announced_at,
                )
            )

        await wait_for(has_beaten)
        words: list[bytes] = []

        def until_the_heartbeat_is_answered(message: bytes) -> bool:
            words.append(message)
            own = next(
                (n for n, word in enumerate(words) if word[:1] == _NOTIFICATION and b"template_feed_" in word), None
            )
            return own is None or all(word[:1] != _READY for word in words[own:-1])

        relay.passes = until_the_heartbeat_is_answered
        relay.release()
        await listener.until_told(LOST)
        assert [word[9:] for word in words if b"*" in word] == [b"template_changes\x00*\x00"]
        relay.passes = lambda _message: True
        await listener.until_told(LOST, CAUGHT_UP)
        assert set(listener.take()[1:-1]) == {Change(n, 1) for n in range(50_001, 51_501)}
        await feed.aclose()
