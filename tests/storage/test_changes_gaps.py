"""The feed of changes when its connection is lost: it says so, and then tells exactly what was committed meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from app.embedded.stack import EmbeddedStack
from app.storage import announcements as announcements_module
from app.storage import changes as feed_module
from app.storage.changes import Change, ChangeFeed
from app.storage.postgres import Connection
from tests.storage.conftest import MakeFeed, database_name, next_beat, wait_for
from tests.storage.recording_listener import CAUGHT_UP, EVERYTHING, LOST, RecordingListener
from tests.storage.relay import Relay
from tests.ticks import Ticks

_UPDATE = "UPDATE templates SET body = 'x' WHERE id = $1"
_KILL = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE application_name = 'template-changes' AND datname = $1"
)


@pytest.fixture
def url(fresh_database: Callable[[], str]) -> str:
    """A migrated database of the test's own."""
    return fresh_database()


@pytest.fixture
async def other(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close(timeout=2.0)


@pytest.fixture
async def relay(stack: EmbeddedStack) -> AsyncIterator[Relay]:
    async with Relay(stack.postgres.port) as relay:
        yield relay


@pytest.fixture
async def feed(
    relay: Relay, stack: EmbeddedStack, url: str, make_feed: MakeFeed, listener: RecordingListener
) -> AsyncIterator[ChangeFeed]:
    """Up, with the listener, by way of the relay."""
    feed = make_feed(url.replace(f":{stack.postgres.port}/", f":{relay.port}/"))
    feed.add(listener)
    await feed.start()
    assert listener.take() == [LOST, CAUGHT_UP]
    yield feed
    relay.answer()
    await feed.aclose()


async def kill(admin: Connection, url: str) -> None:
    assert await admin.fetchval(_KILL, database_name(url)) == 1


async def test_a_killed_connection_is_noticed_at_once_and_replaced(
    make_feed: MakeFeed, listener: RecordingListener, admin: Connection, url: str
) -> None:
    """By its end: the heartbeat would not tell before the test is over."""
    feed = make_feed(url, heartbeat_s=60.0, answer_timeout_s=60.0)
    feed.add(listener)
    await feed.start()
    assert listener.take() == [LOST, CAUGHT_UP]
    await kill(admin, url)
    await listener.until_told(LOST, CAUGHT_UP)
    assert listener.take() == [LOST, CAUGHT_UP]


async def test_what_was_committed_in_the_gap_is_told_once_with_its_newest_version_and_nothing_else(
    feed: ChangeFeed, listener: RecordingListener, relay: Relay, admin: Connection, writer: Connection, url: str
) -> None:
    """Writes land before the loss, in it and after it; the connection comes back only when all of those have."""
    await writer.execute(_UPDATE, 1)
    await listener.until_told(Change(1, 2))
    relay.stall()
    await kill(admin, url)
    await listener.until_told(LOST)
    assert not feed.is_up
    await writer.execute(_UPDATE, 2)
    await writer.execute(_UPDATE, 2)
    await writer.execute("DELETE FROM templates WHERE id = 3")
    await writer.execute("INSERT INTO templates (id, name, body) VALUES (4000, 'n', '')")
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute(_UPDATE, 4)
    await transaction.rollback()
    listener.take()
    relay.answer()
    await listener.until_told(CAUGHT_UP)
    # What was announced after the last heartbeat before the loss may be told again: never anything not written.
    told = listener.take()
    assert told.pop() == CAUGHT_UP
    assert set(told) - {Change(1, 2)} == {Change(2, 3), Change(3, 2), Change(4000, 1)}
    assert len(told) == len(set(told))
    await writer.execute(_UPDATE, 2)
    await listener.until_told(Change(2, 4))


async def test_after_a_heartbeat_only_the_changes_of_the_gap_are_told(
    feed: ChangeFeed, listener: RecordingListener, relay: Relay, admin: Connection, writer: Connection, url: str
) -> None:
    await writer.execute("UPDATE templates SET body = 'x' WHERE id <= 500")
    position = feed.position

    async def confirmed() -> bool:
        return feed.position != position

    await wait_for(confirmed)
    await wait_for(next_beat(feed))
    relay.stall()
    await kill(admin, url)
    await listener.until_told(LOST)
    listener.take()
    await writer.execute(_UPDATE, 7)
    relay.answer()
    await listener.until_told(CAUGHT_UP)
    assert listener.take() == [Change(7, 3), CAUGHT_UP]


async def test_a_transaction_begun_long_before_the_gap_and_committed_in_it_is_found(
    feed: ChangeFeed,
    listener: RecordingListener,
    relay: Relay,
    admin: Connection,
    writer: Connection,
    other: Connection,
    url: str,
) -> None:
    """Later transactions were committed, and told, before the long one: by time and by id it lies before them."""
    long = other.transaction()
    await long.start()
    await other.execute(_UPDATE, 10)
    await writer.execute(_UPDATE, 11)
    await listener.until_told(Change(11, 2))
    await wait_for(next_beat(feed))
    await wait_for(next_beat(feed))
    relay.stall()
    await kill(admin, url)
    await listener.until_told(LOST)
    listener.take()
    await long.commit()
    relay.answer()
    await listener.until_told(CAUGHT_UP)
    assert listener.take() == [Change(10, 2), CAUGHT_UP]


async def test_a_transaction_still_open_after_the_gap_is_told_when_it_commits(
    feed: ChangeFeed, listener: RecordingListener, admin: Connection, other: Connection, url: str
) -> None:
    async with other.transaction():
        await other.execute(_UPDATE, 12)
        await kill(admin, url)
        await listener.until_told(LOST, CAUGHT_UP)
        assert Change(12, 2) not in listener.take()
    await listener.until_told(Change(12, 2))


async def test_a_network_that_goes_silent_is_found_by_the_heartbeat(
    stack: EmbeddedStack,
    url: str,
    make_feed: MakeFeed,
    listener: RecordingListener,
    relay: Relay,
    writer: Connection,
) -> None:
    """The connection stays open and never says anything again."""
    through = url.replace(f":{stack.postgres.port}/", f":{relay.port}/")
    feed = make_feed(through, heartbeat_s=0.5, answer_timeout_s=1.0)
    feed.add(listener)
    await feed.start()
    assert listener.take() == [LOST, CAUGHT_UP]
    relay.cut_silently()
    async with Ticks() as ticks:
        await writer.execute(_UPDATE, 22)
        await listener.until_told(LOST)
    assert ticks.seconds < 1.5 + 0.3
    await listener.until_told(LOST, Change(22, 2), CAUGHT_UP)
    assert listener.take() == [LOST, Change(22, 2), CAUGHT_UP]
    await feed.aclose()


async def test_more_changes_than_the_bound_in_a_gap_are_told_as_everything(
    monkeypatch: pytest.MonkeyPatch,
    feed: ChangeFeed,
    listener: RecordingListener,
    relay: Relay,
    admin: Connection,
    writer: Connection,
    url: str,
) -> None:
    monkeypatch.setattr(feed_module, "MOST_FOUND", 10)
    relay.stall()
    await kill(admin, url)
    await writer.execute("UPDATE templates SET body = 'x' WHERE id <= 11")
    relay.answer()
    await listener.until_told(LOST, CAUGHT_UP)
    assert listener.take() == [LOST, EVERYTHING, CAUGHT_UP]


async def test_a_catch_up_that_the_server_cuts_off_is_told_as_everything(
    monkeypatch: pytest.MonkeyPatch,
    feed: ChangeFeed,
    listener: RecordingListener,
    relay: Relay,
    admin: Connection,
    writer: Connection,
    url: str,
) -> None:
    """The table is locked for longer than the query's own timeout."""
    monkeypatch.setattr(feed_module, "CATCH_UP_TIMEOUT_S", 0.2)
    async with writer.transaction():
        await writer.execute("LOCK TABLE template_changes")
        await kill(admin, url)
        await listener.until_told(LOST, CAUGHT_UP)
    assert listener.take() == [LOST, EVERYTHING, CAUGHT_UP]


async def test_a_connection_killed_again_and_again_under_writes_leaves_none_untold(
    stack: EmbeddedStack, admin: Connection, url: str, make_feed: MakeFeed, writer: Connection
) -> None:
    """A model of a cache's floors: the highest version told of each id is the database's in the end."""
    listener = RecordingListener()
    feed = make_feed(url, heartbeat_s=0.02)
    feed.add(listener)
    await feed.start()
    rounds = losses = 0
    while losses < 8:
        rounds += 1
        for template_id in range(100, 150):
            await writer.execute(_UPDATE, template_id)
            if template_id % 10 == rounds % 10:
                losses += await admin.fetchval(_KILL, database_name(url))
    expected = {Change(template_id, 1 + rounds) for template_id in range(100, 150)}
    await listener.until(lambda: expected <= set(listener.told) and feed.is_up)
    words = [word for word in listener.take() if isinstance(word, str)]
    assert words[0] == LOST
    assert words == [LOST, CAUGHT_UP] * (len(words) // 2)


async def test_another_database_or_table_of_the_same_name_is_everything_changed(
    feed: ChangeFeed, listener: RecordingListener, relay: Relay, admin: Connection, url: str
) -> None:
    """The table is dropped and made again, as a restored dump does."""
    relay.stall()
    await kill(admin, url)
    await admin.execute(
        "ALTER TABLE template_changes RENAME TO old; CREATE TABLE template_changes (LIKE old INCLUDING ALL);"
        "INSERT INTO template_changes SELECT * FROM old; GRANT SELECT ON template_changes TO app"
    )
    relay.answer()
    await listener.until_told(LOST, CAUGHT_UP)
    assert listener.take() == [LOST, EVERYTHING, CAUGHT_UP]


async def test_the_question_after_a_gap_reads_the_index_and_not_the_table(
    writer: Connection, admin: Connection
) -> None:
    await writer.execute(
        "INSERT INTO templates (id, name, body) SELECT n, 'n', '' FROM generate_series(2001, 22000) AS n"
    )
    await admin.execute("ANALYZE template_changes")
    snapshot = await writer.fetchval("SELECT pg_current_snapshot()::text")
    query = announcements_module._SINCE.replace("$1", "'c'").replace("$2", "'p'").replace("$4", "100001")
    plan = "\n".join(row[0] for row in await writer.fetch("EXPLAIN " + query.replace("$3", f"'{snapshot}'")))
    assert "template_changes_xid" in plan
    assert "Seq Scan" not in plan
