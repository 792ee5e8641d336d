"""The feed of changes while nothing breaks, its beginning and its end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import pytest

from app.embedded.stack import EmbeddedStack
from app.storage import announcements as announcements_module
from app.storage import changes as feed_module
from app.storage.announcements import Announcements
from app.storage.changes import Change, ChangeFeed, ChangeListener
from app.storage.postgres import Connection
from tests.held_up import hold_up
from tests.storage.conftest import MakeFeed, database_name, wait_for
from tests.storage.recording_listener import CAUGHT_UP, EVERYTHING, LOST, RecordingListener
from tests.storage.relay import Relay, free_port
from tests.ticks import Ticks

_UPDATE = "UPDATE templates SET body = 'x' WHERE id = $1"
_FEEDS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'template-changes' AND datname = $1"


@pytest.fixture
async def feed(url: str, make_feed: MakeFeed, listener: RecordingListener) -> ChangeFeed:
    """Up, with the listener, which has been told so."""
    feed = make_feed(url)
    feed.add(listener)
    await feed.start()
    assert feed.is_up
    assert listener.take() == [LOST, CAUGHT_UP]
    return feed


def test_a_listener_is_what_the_feed_asks_for(listener: RecordingListener) -> None:
    protocol: ChangeListener = listener
    assert protocol is listener


async def test_every_commit_is_told_and_nothing_else(
    feed: ChangeFeed, listener: RecordingListener, writer: Connection
) -> None:
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute(_UPDATE, 1)
    await transaction.rollback()
    await writer.execute(_UPDATE, 2)
    async with writer.transaction():
        await writer.execute(_UPDATE, 3)
        await writer.execute("DELETE FROM templates WHERE id = 2")
    await listener.until_told(Change(2, 3))
    assert listener.take() == [Change(2, 2), Change(3, 2), Change(2, 3)]


async def test_five_hundred_updates_are_told_as_soon_as_a_connection_that_only_listens_hears_of_them(
    url: str, make_feed: MakeFeed, listener: RecordingListener, writer: Connection
) -> None:
    """No heartbeat tells. What it takes from a client's COMMIT is for `scenario invalidation` to measure."""
    feed = make_feed(url, heartbeat_s=3600.0)
    feed.add(listener)
    await feed.start()
    listener.take()
    bare = await asyncpg.connect(url)
    heard = asyncio.Event()
    heard_at = 0.0

    def hear(*_notification: object) -> None:
        nonlocal heard_at
        heard_at = time.perf_counter()
        heard.set()

    later_s: list[float] = []
    try:
        await bare.add_listener("template_changes", hear)
        first = await writer.fetchval("SELECT version FROM templates WHERE id = 20")
        for n in range(1, 501):
            heard.clear()
            writing = asyncio.gather(writer.execute(_UPDATE, 20), heard.wait())
            await listener.until_told(Change(20, first + n))
            told_at = time.perf_counter()
            await writing
            later_s.append(told_at - heard_at)
            listener.take()
    finally:
        await bare.close(timeout=2.0)
    median_ms = 1000 * sorted(later_s)[250]
    print(f"told {median_ms:.2f} ms after a bare listener, at the median")
    assert median_ms <= 1


async def test_a_bulk_write_is_told_id_by_id_without_losing_the_feed(
    fresh_database: Callable[[], str], make_feed: MakeFeed, listener: RecordingListener
) -> None:
    url = fresh_database()
    feed = make_feed(url)
    feed.add(listener)
    await feed.start()
    listener.take()
    writer = await asyncpg.connect(url)
    try:
        records = [(100_000 + n, "n", "b") for n in range(99_000)]
        await writer.copy_records_to_table("templates", records=records, columns=["id", "name", "body"])
        copied = time.perf_counter()
        await listener.until(lambda: len(listener.told) == 99_000)
        print(f"99,000 ids told {time.perf_counter() - copied:.2f} s after the COPY")
        assert set(listener.take()) == {Change(100_000 + n, 1) for n in range(99_000)}
        # More than the bound: which ones is not told.
        await writer.execute("UPDATE templates SET body = 'x'")
        await writer.execute(
            "INSERT INTO templates (id, name, body) SELECT n, 'n', '' FROM generate_series(900001, 901001) n"
        )
        await listener.until(lambda: len(listener.told) >= 100_000 or EVERYTHING in listener.told)
        await writer.execute(_UPDATE, 1)
        await listener.until_told(Change(1, 3))
        assert feed.is_up
    finally:
        await writer.close(timeout=2.0)


async def test_more_than_the_bound_is_told_as_everything(
    monkeypatch: pytest.MonkeyPatch, feed: ChangeFeed, listener: RecordingListener, writer: Connection
) -> None:
    monkeypatch.setattr(feed_module, "MOST_FOUND", 1001)
    await writer.execute(
        "INSERT INTO templates (id, name, body) SELECT n, 'n', '' FROM generate_series(30001, 31001) n"
    )
    await listener.until(lambda: len(listener.told) == 1001)
    listener.take()
    await writer.execute(
        "INSERT INTO templates (id, name, body) SELECT n, 'n', '' FROM generate_series(31002, 32003) n"
    )
    await listener.until_told(EVERYTHING)
    await writer.execute(_UPDATE, 31_001)
    await listener.until_told(Change(31_001, 2))
    assert listener.take() == [EVERYTHING, Change(31_001, 2)]


async def test_many_bulk_writes_at_once_leave_none_untold(
    feed: ChangeFeed, listener: RecordingListener, url: str
) -> None:
    """While the feed looks up what one changed, others are committed."""

    async def fill(first: int) -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(
                "INSERT INTO templates (id, name, body) "
                "SELECT n, 'n', '' FROM generate_series($1::bigint, $1 + 1199) AS n",
                first,
            )
        finally:
            await connection.close(timeout=2.0)

    await asyncio.gather(*(fill(40_000 + 2_000 * n) for n in range(8)))
    expected = {Change(40_000 + 2_000 * n + m, 1) for n in range(8) for m in range(1200)}
    await listener.until(lambda: expected <= set(listener.told))
    assert feed.is_up


async def test_a_notification_that_cannot_be_read_costs_a_look_in_the_table_and_no_more(
    feed: ChangeFeed, listener: RecordingListener, writer: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    for payload in ("", "1", "1:x", "1:2:3", "*:*", "☃"):
        await writer.execute("SELECT pg_notify('template_changes', $1)", payload)
    await writer.execute(_UPDATE, 50)
    await listener.until_told(Change(50, 2))
    assert "1:2:3" in caplog.text
    assert feed.is_up
    assert LOST not in listener.told


async def test_a_listener_that_raises_is_logged_and_keeps_nothing_from_the_others(
    feed: ChangeFeed, listener: RecordingListener, writer: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(RecordingListener):
        def changed(self, changes: Sequence[Change]) -> None:
            raise RuntimeError("no")

        def feed_caught_up(self) -> None:
            raise RuntimeError("neither")

    failing = Failing()
    feed.remove(listener)
    feed.add(failing)
    feed.add(listener)
    await writer.execute(_UPDATE, 51)
    await listener.until_told(Change(51, 2))
    assert feed.is_up
    assert [record.message for record in caplog.records].count(f"a listener to changes failed: {failing!r}") == 2


async def test_a_listener_that_joins_late_is_told_the_state_and_one_that_left_nothing(
    feed: ChangeFeed, listener: RecordingListener, writer: Connection
) -> None:
    late = RecordingListener()
    feed.add(late)
    assert late.told == [CAUGHT_UP]
    feed.remove(listener)
    feed.remove(listener)
    await writer.execute(_UPDATE, 52)
    await late.until_told(Change(52, 2))
    assert listener.told == []


async def test_a_heartbeat_moves_the_position_on(feed: ChangeFeed, url: str, make_feed: MakeFeed) -> None:
    quick = make_feed(url, heartbeat_s=0.01)
    await quick.start()
    before, asked = quick.position, quick.told_until
    assert before is not None
    assert asked is not None

    async def moved() -> bool:
        return quick.position != before and (quick.told_until or 0) > asked

    await wait_for(moved)
    assert quick.position is not None
    assert quick.position.history == before.history


async def test_a_heartbeat_that_is_answered_while_this_process_cannot_run_loses_nothing(
    url: str, make_feed: MakeFeed, listener: RecordingListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interleaving: it is asked; the server answers; the loop is held up past the time to answer, and goes on."""
    asked: Counter[Announcements] = Counter()
    ask = Announcements._row

    async def ask_and_be_held_up(announcements: Announcements, query: str, *arguments: object) -> asyncpg.Record:
        if query == announcements_module._BEAT:
            asked[announcements] += 1
            if asked[announcements] > 1:  # the first has to be prepared, in a round trip of its own
                hold_up(announcements._connection._transport, 0.5)  # type: ignore[attr-defined]
        return await ask(announcements, query, *arguments)

    slow = announcements_module._BEAT.replace("SELECT", "SELECT pg_sleep(0.1),", 1)
    monkeypatch.setattr(announcements_module, "_BEAT", slow)
    monkeypatch.setattr(Announcements, "_row", ask_and_be_held_up)
    feed = make_feed(url, heartbeat_s=0.02, answer_timeout_s=0.3)
    feed.add(listener)
    await feed.start()

    async def held_up_thrice() -> bool:
        return max(asked.values()) > 4

    await wait_for(held_up_thrice)
    assert listener.take() == [LOST, CAUGHT_UP]


async def test_a_feed_that_resumes_tells_first_what_was_committed_since_the_position(
    feed: ChangeFeed, writer: Connection, url: str, make_feed: MakeFeed, listener: RecordingListener
) -> None:
    position = feed.position
    await writer.execute(_UPDATE, 53)
    resumed, told = make_feed(url, resume_from=position), RecordingListener()
    resumed.add(told)
    await resumed.start()
    assert told.take() == [LOST, Change(53, 2), CAUGHT_UP]


@pytest.mark.parametrize("snapshot", ["", "nonsense", "1:2", "9999999999:9999999999:"])
async def test_a_position_that_means_nothing_is_everything_changed(
    feed: ChangeFeed, url: str, make_feed: MakeFeed, snapshot: str
) -> None:
    assert feed.position is not None
    resumed, told = (
        make_feed(url, resume_from=type(feed.position)(feed.position.history, snapshot)),
        RecordingListener(),
    )
    resumed.add(told)
    await resumed.start()
    assert resumed.is_up
    assert told.take() == [LOST, EVERYTHING, CAUGHT_UP]


async def test_start_returns_without_a_database_and_the_feed_comes_up_with_it(
    stack: EmbeddedStack, url: str, make_feed: MakeFeed, listener: RecordingListener
) -> None:
    relay = Relay(stack.postgres.port)
    feed = make_feed(url.replace(f":{stack.postgres.port}/", f":{relay.port}/"), connect_timeout_s=0.2)
    feed.add(listener)
    started = time.perf_counter()
    async with Ticks() as ticks:
        await feed.start()
    assert time.perf_counter() - started > 0.15
    assert ticks.seconds < 1
    assert not feed.is_up
    async with relay:
        # Others have been reading meanwhile, and nobody knows what changed.
        await listener.until_told(LOST, EVERYTHING, CAUGHT_UP)
        assert listener.take() == [LOST, EVERYTHING, CAUGHT_UP]
        await feed.aclose()


@pytest.mark.parametrize(
    ("url_of", "complaint"),
    [
        (lambda url: url.rpartition("/")[0] + "/nowhere", 'database "nowhere" does not exist'),
        (lambda url: url.replace("//app@", "//nobody@"), 'role "nobody" does not exist'),
    ],
)
async def test_a_database_that_refuses_us_is_said_once_and_tried_again(
    url: str,
    make_feed: MakeFeed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    url_of: Callable[[str], str],
    complaint: str,
) -> None:
    feed = make_feed(url_of(url))
    tries = 0
    follow = feed._follow

    async def count_and_follow() -> None:
        nonlocal tries
        tries += 1
        await follow()

    async def has_failed_twice() -> bool:
        return tries >= 3

    monkeypatch.setattr(feed, "_follow", count_and_follow)
    starting = asyncio.create_task(feed.start())
    await wait_for(has_failed_twice)
    assert not feed.is_up
    assert caplog.text.count(complaint) == 1
    await feed.aclose()
    await starting


async def test_a_database_without_the_table_is_no_feed(
    empty_database: Callable[[], str], make_feed: MakeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    feed = make_feed(empty_database(), connect_timeout_s=0.3)
    await feed.start()
    assert not feed.is_up
    assert 'relation "public.template_changes" does not exist' in caplog.text


async def test_a_closed_feed_has_left_and_tells_no_more(
    feed: ChangeFeed, listener: RecordingListener, writer: Connection, admin: Connection, url: str
) -> None:
    await feed.aclose()
    await feed.aclose()
    assert listener.take() == [LOST]
    await writer.execute(_UPDATE, 54)
    assert not feed.is_up
    with pytest.raises(RuntimeError):
        await feed.start()

    async def gone() -> bool:
        return bool(await admin.fetchval(_FEEDS, database_name(url)) == 0)

    await wait_for(gone)
    assert listener.told == []


async def test_a_feed_closed_at_any_point_leaves_no_task_and_no_connection(
    fresh_database: Callable[[], str], admin: Connection
) -> None:
    """Closed after 0, 1, 2, … steps of the event loop, and after random times."""
    url = fresh_database()
    tasks = asyncio.all_tasks()
    for steps in [*range(25), *([None] * 25)]:
        feed = ChangeFeed(url, heartbeat_s=0.002)
        feed.add(RecordingListener())
        starting = asyncio.ensure_future(feed.start())
        if steps is None:
            await asyncio.sleep(random.uniform(0, 0.04))
        else:
            for _ in range(steps):
                await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await feed.aclose()
            if feed._task is None:
                with pytest.raises(RuntimeError):
                    await starting
            else:
                await starting
        await _settled(tasks)

    async def gone() -> bool:
        return bool(await admin.fetchval(_FEEDS, database_name(url)) == 0)

    await wait_for(gone)


async def test_a_start_that_is_cancelled_leaves_a_feed_that_can_be_closed(url: str) -> None:
    tasks = asyncio.all_tasks()
    feed = ChangeFeed(f"postgresql://app@127.0.0.1:{free_port()}/app")
    starting = asyncio.ensure_future(feed.start())
    await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    await feed.aclose()
    await _settled(tasks)


async def _settled(tasks: set[asyncio.Task[Any]]) -> None:
    """No task but those; a cancelled one may need a few steps to end."""

    async def only_those() -> bool:
        return asyncio.all_tasks() <= tasks

    await wait_for(only_those)


async def test_what_the_feed_logs_at_its_beginning_is_one_line(
    url: str, make_feed: MakeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.storage")
    await make_feed(url).start()
    assert caplog.messages == ["changes are announced"]
