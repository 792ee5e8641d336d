from __future__ import annotations

import pytest

from app.storage.announcements import CHANNEL, FLUSH
from app.storage.change import Change
from app.storage.postgres import Connection
from tests.storage.conftest import MakeFeed
from tests.storage.recording_listener import CAUGHT_UP, FLUSHED, LOST, RecordingListener


async def test_who_measures_has_all_listeners_begin_with_nothing_in_hand_and_no_template_has_changed(
    url: str,
    make_feed: MakeFeed,
    listener: RecordingListener,
    writer: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = make_feed(url)
    feed.add(listener)
    await feed.start()
    subscription = feed.subscribe(10)
    await writer.execute("SELECT pg_notify($1, $2)", CHANNEL, FLUSH)
    await writer.execute("UPDATE templates SET body = '' WHERE id = 60")
    await listener.until_told(Change(60, 2))
    assert listener.take() == [LOST, CAUGHT_UP, FLUSHED, Change(60, 2)]
    batch = await anext(subscription)
    assert (batch.changes, batch.gap) == ((Change(60, 2),), False)
    assert not caplog.records
    assert feed.is_up
