"""A subscription's consumer may be slow: what is kept for it is bounded, the newest version wins, gaps are said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.storage.changes import Batch, Change, ChangeFeed, ChangeListener, Subscription


def make(max_ids: int = 3) -> Subscription:
    return Subscription(max_ids, lambda _subscription: None)


async def is_waiting(subscription: Subscription) -> bool:
    """Whether there is nothing to take."""
    taking = asyncio.ensure_future(anext(subscription))
    done, _ = await asyncio.wait({taking}, timeout=0.01)
    if done:
        return False
    taking.cancel()
    await asyncio.wait({taking})
    return taking.cancelled()


def test_a_subscription_is_a_listener() -> None:
    listener: ChangeListener = make()
    assert listener is not None


@pytest.mark.parametrize("max_ids", [0, -1])
def test_a_subscription_that_keeps_nothing_is_refused(max_ids: int) -> None:
    with pytest.raises(ValueError, match="max_ids"):
        make(max_ids)


async def test_a_batch_holds_each_id_once_with_its_newest_version() -> None:
    subscription = make()
    subscription.changed([Change(1, 5), Change(2, 1)])
    subscription.changed([Change(1, 7)])
    subscription.changed([Change(1, 6), Change(2, 1)])
    assert await anext(subscription) == Batch((Change(1, 7), Change(2, 1)), gap=False)
    assert await is_waiting(subscription)


async def test_a_consumer_that_waits_is_woken_by_the_next_change() -> None:
    subscription = make()
    taking = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    subscription.changed([Change(1, 1)])
    assert await taking == Batch((Change(1, 1),), gap=False)


async def test_a_slow_consumer_costs_no_more_than_its_bound_and_learns_of_the_gap() -> None:
    subscription = make(3)
    for number in range(1, 10_001):
        subscription.changed([Change(number, 1)])
        assert len(subscription._newest) <= 3
    batch = await anext(subscription)
    assert batch.gap
    assert set(batch.changes) <= {Change(number, 1) for number in range(1, 10_001)}
    assert await is_waiting(subscription)
    subscription.changed([Change(1, 2)])
    assert await anext(subscription) == Batch((Change(1, 2),), gap=False)


async def test_at_its_bound_nothing_is_missed_yet() -> None:
    subscription = make(3)
    subscription.changed([Change(1, 1), Change(2, 1), Change(3, 1)])
    subscription.changed([Change(2, 2)])
    assert await anext(subscription) == Batch((Change(1, 1), Change(2, 2), Change(3, 1)), gap=False)


async def test_everything_changed_is_a_gap_and_what_was_kept_before_it_is_dropped() -> None:
    subscription = make()
    subscription.changed([Change(1, 9)])
    subscription.everything_changed()
    subscription.changed([Change(1, 2)])
    assert await anext(subscription) == Batch((Change(1, 2),), gap=True)


async def test_a_loss_of_the_feed_alone_tells_the_consumer_nothing() -> None:
    subscription = make()
    subscription.feed_lost()
    subscription.feed_caught_up()
    assert await is_waiting(subscription)


async def test_a_consumer_that_is_cancelled_while_it_waits_loses_nothing() -> None:
    """The change comes, and the cancellation in the same step of the event loop."""
    subscription = make()
    taking = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    subscription.changed([Change(1, 1)])
    taking.cancel()
    await asyncio.wait({taking})
    assert taking.cancelled()
    assert await anext(subscription) == Batch((Change(1, 1),), gap=False)


async def test_closing_ends_the_consumer_and_is_harmless_when_repeated() -> None:
    subscription = make()

    async def consume() -> list[Batch]:
        return [batch async for batch in subscription]

    consuming = asyncio.ensure_future(consume())
    await asyncio.sleep(0)
    subscription.close()
    subscription.close()
    assert await consuming == []
    with pytest.raises(StopAsyncIteration):
        await anext(subscription)
    subscription.changed([Change(1, 1)])
    with pytest.raises(StopAsyncIteration):
        await anext(subscription)


class TestOfAFeed:
    @pytest.fixture
    async def feed(self, url: str) -> AsyncIterator[ChangeFeed]:
        feed = ChangeFeed(url)
        await feed.start()
        yield feed
        await feed.aclose()

    async def test_it_brings_changes_until_it_is_left(self, feed: ChangeFeed, url: str) -> None:
        writer = await asyncpg.connect(url)
        try:
            async with feed.subscribe(10) as subscription:
                await writer.execute("UPDATE templates SET body = 'x' WHERE id IN (1, 2)")
                batch = await anext(subscription)
                assert set(batch.changes) == {Change(1, 2), Change(2, 2)}
            assert feed._listeners == []
        finally:
            await writer.close(timeout=2.0)

    async def test_it_ends_with_the_feed(self, feed: ChangeFeed) -> None:
        subscriptions = [feed.subscribe(10) for _ in range(3)]
        taking = [asyncio.ensure_future(anext(subscription)) for subscription in subscriptions]
        await feed.aclose()
        outcomes = await asyncio.gather(*taking, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StopAsyncIteration] * 3
        with pytest.raises(RuntimeError, match="closed"):
            feed.subscribe(10)
