"""Batches for those who watch, bounded, and honest about what they leave out."""

from __future__ import annotations

import asyncio

import pytest

from app.loom.recording import feed as feed_module
from app.loom.recording.feed import MAX_SUBSCRIBERS, Batch, Feed, Subscriber, TooManySubscribersError
from app.loom.recording.recorder import Recorder
from app.loom.recording.ring import Ring
from tests.loom.recording.calls import unary


def record(recorder: Recorder, *calls: int) -> None:
    for call in calls:
        for event in unary(call):
            recorder(event)


async def following(subscriber: Subscriber) -> Batch | None:
    return await anext(subscriber, None)


async def test_a_batch_has_each_record_once_in_the_order_of_their_last_change() -> None:
    feed = Feed(interval_s=0)
    recorder = Recorder(Ring(), [feed])
    async with feed.subscribe() as subscriber:
        first, second = unary(1), unary(2)
        for event in [first[0], *second, *first[1:]]:
            recorder(event)
        batch = await anext(subscriber)
        assert [each.id.rpartition("-")[2] for each in batch.records] == ["2", "1"]
        assert batch.left_out == 0
        waiting = asyncio.create_task(following(subscriber))
        await asyncio.sleep(0)
        waiting.cancel()
        record(recorder, 3)
        assert len((await anext(subscriber)).records) == 1
    assert len(feed) == 0


async def test_a_subscriber_that_is_too_slow_gets_the_newest_and_is_told_how_many_are_missing() -> None:
    feed = Feed(interval_s=0, max_pending=3)
    recorder = Recorder(Ring(), [feed])
    async with feed.subscribe() as slow:
        record(recorder, *range(10))
        batch = await anext(slow)
    assert [each.id.rpartition("-")[2] for each in batch.records] == ["7", "8", "9"]
    assert batch.left_out == 7
    assert feed.left_out == 7


async def test_what_waits_for_a_subscriber_that_has_stopped_is_bounded_by_bytes_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "MAX_PENDING_BYTES", 25_000)
    feed = Feed(interval_s=0)
    recorder = Recorder(Ring(), [feed])
    async with feed.subscribe() as stopped:
        for call in range(4):
            for event in unary(call, bytes(8_000)):
                recorder(event)
        batch = await anext(stopped)
        assert [each.id.rpartition("-")[2] for each in batch.records] == ["2", "3"]
        assert batch.left_out == 2
        for event in unary(9, bytes(30_000)):
            recorder(event)
        assert len((await anext(stopped)).records) == 1  # one is told of, whatever its size


async def test_closing_ends_every_iteration_and_subscribers_are_bounded() -> None:
    feed = Feed(interval_s=0)
    subscribers = [feed.subscribe() for _ in range(MAX_SUBSCRIBERS)]
    with pytest.raises(TooManySubscribersError, match=str(MAX_SUBSCRIBERS)):
        feed.subscribe()
    waiting = [asyncio.create_task(following(each)) for each in subscribers]
    await asyncio.sleep(0)
    feed.close()
    assert await asyncio.gather(*waiting) == [None] * MAX_SUBSCRIBERS
    assert len(feed) == 0
