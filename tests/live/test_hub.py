from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from app.live.hub import (
    KEPT_S,
    KEPT_SAMPLES,
    MAX_QUEUED,
    MAX_SUBSCRIBERS,
    Hub,
    Kind,
    Subscriber,
    TooManySubscribersError,
)
from app.telemetry.live_page import LivePageMetrics

HELLO = {"version": "1"}


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def metrics() -> LivePageMetrics:
    return LivePageMetrics(CollectorRegistry())


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def hub(metrics: LivePageMetrics, time: Time) -> Hub:
    return Hub(metrics, time)


def sample(at: float, **apps: int) -> dict[str, Any]:
    return {"at": at, "apps": apps or {"app": 1}}


async def told(subscriber: Subscriber) -> list[tuple[str, Any]]:
    """What waits for it, parsed."""
    found = []
    while event := await subscriber.next(0.0):
        name, data = event.decode().rstrip("\n").split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_who_comes_is_told_what_was_and_then_what_comes(hub: Hub) -> None:
    hub.sample(sample(999.0), "app")
    hub.mark("expire", "Template 1 expired", 1_000.0)
    hub.stampede("app", {"app": "app", "key": "1"}, own=True)
    page = hub.subscribe(Kind.PAGE, HELLO, "app")
    hub.sample(sample(1001.0), "app")
    assert await told(page) == [
        ("hello", HELLO),
        (
            "history",
            {
                "samples": [sample(999.0)],
                "marks": [{"at": 1000.0, "what": "Template 1 expired", "kind": "expire"}],
            },
        ),
        ("stampede", {"app": "app", "key": "1"}),
        ("sample", sample(1001.0)),
    ]


async def test_a_peer_is_told_of_the_application_itself_alone_so_that_two_that_follow_each_other_do_not_echo(
    hub: Hub,
) -> None:
    hub.stampede("other", {"app": "other"}, own=False)
    peer = hub.subscribe(Kind.PEER, HELLO, "app")
    hub.sample(sample(1001.0, app=1, other=2), "app")
    hub.mark("expire", "Template 1 expired", 1_000.0)
    hub.stampede("other", {"app": "other", "key": "2"}, own=False)
    hub.stampede("app", {"app": "app"}, own=True)
    assert await told(peer) == [("hello", HELLO), ("sample", sample(1001.0, app=1)), ("stampede", {"app": "app"})]


async def test_a_slow_subscriber_loses_what_comes_while_it_is_full_and_costs_the_others_nothing(
    hub: Hub, metrics: LivePageMetrics
) -> None:
    slow, quick = hub.subscribe(Kind.PAGE, HELLO, "app"), hub.subscribe(Kind.PAGE, HELLO, "app")
    for number in range(3 * MAX_QUEUED):
        hub.sample(sample(float(number)), "app")
        assert [name for name, _ in await told(quick)][-1] == "sample"
    assert len(await told(slow)) == MAX_QUEUED
    assert metrics.dropped.value == 3 * MAX_QUEUED - (MAX_QUEUED - 2)
    hub.sample(sample(2_000.0), "app")
    assert await told(slow) == [("sample", sample(2_000.0))], "once it reads again it is told again"


async def test_as_many_as_are_served_are_served_and_no_more(hub: Hub, metrics: LivePageMetrics) -> None:
    subscribers = [hub.subscribe(Kind.PAGE, HELLO, "app") for _ in range(MAX_SUBSCRIBERS)]
    with pytest.raises(TooManySubscribersError, match="64"):
        hub.subscribe(Kind.PAGE, HELLO, "app")
    assert (metrics.subscribers.value, metrics.refused.value) == (MAX_SUBSCRIBERS, 1)
    hub.unsubscribe(subscribers[0])
    hub.unsubscribe(subscribers[0])
    assert metrics.subscribers.value == MAX_SUBSCRIBERS - 1
    hub.subscribe(Kind.PAGE, HELLO, "app")


async def test_the_history_is_of_five_minutes_and_of_so_many_samples(hub: Hub, time: Time) -> None:
    for number in range(2 * KEPT_SAMPLES):
        hub.sample(sample(time.now + number / 10), "app")
    ((_, _), (_, history)) = await told(hub.subscribe(Kind.PAGE, HELLO, "app"))
    assert len(history["samples"]) == KEPT_SAMPLES
    time.now += KEPT_S + 2 * KEPT_SAMPLES / 10 - 1
    ((_, _), (_, history)) = await told(hub.subscribe(Kind.PAGE, HELLO, "app"))
    assert len(history["samples"]) == 10


async def test_at_the_end_every_stream_ends_after_what_waited_and_who_comes_then_is_ended_at_once(hub: Hub) -> None:
    early = hub.subscribe(Kind.PAGE, HELLO, "app")
    hub.close()
    assert [name for name, _ in await told(early)] == ["hello", "history"]
    assert await early.next(60.0) is None
    assert await hub.subscribe(Kind.PAGE, HELLO, "app").next(60.0) is None
    assert hub.count(Kind.PAGE) == 0


async def test_who_waits_is_woken_by_what_comes_and_by_the_end(hub: Hub) -> None:
    page = hub.subscribe(Kind.PAGE, HELLO, "app")
    await told(page)
    waiting = asyncio.create_task(page.next(60.0))
    await asyncio.sleep(0)
    hub.mark("expire", "Template 1 expired", 1_000.0)
    assert b"Template 1 expired" in (await waiting or b"")
    waiting = asyncio.create_task(page.next(60.0))
    await asyncio.sleep(0)
    hub.close()
    assert await waiting is None


async def test_a_stampede_that_a_peer_tells_again_is_not_told_again(hub: Hub) -> None:
    page = hub.subscribe(Kind.PAGE, HELLO, "app")
    for _ in range(2):
        hub.stampede("other", {"key": "1"}, own=False)
    assert [name for name, _ in await told(page)] == ["hello", "history", "stampede"]
