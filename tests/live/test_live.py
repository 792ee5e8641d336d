"""The page's clock: it runs while somebody looks, and not otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.live import live as live_module
from app.live.hub import Hub, Kind, Subscriber
from app.live.live import Live
from app.live.meter import Meter, Totals
from app.live.peers import Peers
from app.live.recorder import Recorder
from app.live.sample import Sample
from app.telemetry.metrics import SECONDS, Metrics

HELLO: dict[str, Any] = {}
PATIENCE_S = 20.0


class CountedMeter(Meter):
    """Counts how often it is read."""

    reads = 0

    def read(self) -> Totals:
        self.reads += 1
        return super().read()


class FakePeers(Peers):
    """Two, of which nothing is asked."""

    def __init__(self) -> None:
        super().__init__([])
        self.is_followed = False
        self.said: list[tuple[str, Sample]] = []

    def start(self) -> None:
        self.is_followed = True

    def stop(self) -> None:
        self.is_followed = False

    def latest(self) -> list[tuple[str, Sample]]:
        return self.said


class World:
    def __init__(self) -> None:
        self.metrics = Metrics(mode="full", version="1", ttl_s=30)
        self.hub = Hub(self.metrics.live_page)
        self.meter = CountedMeter(self.metrics, routes=frozenset({"/t"}), methods=frozenset({"S/Get"}))
        self.recorder = Recorder(lambda _: None, app="app", mode="full")
        self.peers = FakePeers()
        self.live = Live(
            hub=self.hub,
            meter=self.meter,
            mode="full",
            bounds_s=SECONDS,
            recorder=self.recorder,
            peers=self.peers,
        )


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(live_module, "INTERVAL_S", 0.01)
    world = World()
    yield world
    await world.live.aclose(PATIENCE_S)


async def sample(subscriber: Subscriber) -> dict[str, Any]:
    """The next one that it is told."""
    async with asyncio.timeout(PATIENCE_S):
        while event := await subscriber.next(PATIENCE_S):
            if event.startswith(b"event: sample"):
                apps: dict[str, Any] = json.loads(event.partition(b"data: ")[2])["apps"]
                return apps
    raise AssertionError("the stream ended")


async def test_while_nobody_looks_nothing_is_read_and_nothing_is_recorded(world: World) -> None:
    await asyncio.sleep(0.05)
    assert (world.meter.reads, world.recorder.is_on, world.peers.is_followed) == (0, False, False)


async def test_when_the_last_one_leaves_the_sampling_stops_and_the_next_one_begins_it_anew(world: World) -> None:
    first, second = (world.live.subscribe(Kind.PAGE, HELLO) for _ in range(2))
    await sample(first)
    world.hub.unsubscribe(first)
    await sample(second)
    assert (world.live.is_sampling, world.recorder.is_on, world.peers.is_followed) == (True, True, True)
    world.hub.unsubscribe(second)
    assert (world.live.is_sampling, world.recorder.is_on, world.peers.is_followed) == (False, False, False)
    reads = world.meter.reads
    await asyncio.sleep(0.05)
    assert world.meter.reads == reads
    await sample(world.live.subscribe(Kind.PAGE, HELLO))


async def test_for_a_peer_alone_the_other_peers_are_not_followed_or_two_would_keep_each_other_awake(
    world: World,
) -> None:
    peer = world.live.subscribe(Kind.PEER, HELLO)
    assert (world.live.is_sampling, world.peers.is_followed) == (True, False)
    world.peers.said = [("other", Sample("none"))]
    assert set(await sample(peer)) == {"app"}


async def test_what_happened_since_the_last_sample_is_told_and_what_peers_say_stands_beside_it(world: World) -> None:
    page = world.live.subscribe(Kind.PAGE, HELLO)
    world.peers.said = [("other", Sample("none", requests=7.0)), ("app", Sample("full", requests=0.5))]
    await sample(page)
    for _ in range(3):
        world.metrics.request_ended("/t", "GET", 200, 0.002)
        world.metrics.request_ended("/events", "GET", 200, 60.0)
    for name, seconds in (("S/Get", 0.002), ("S/Watch", 60.0)):
        call = world.metrics.calls.method(name)
        call.ended("OK").value += 1
        call.seconds.observe(seconds)
    world.metrics.loaded(0.002)
    world.metrics.least_load()
    world.metrics.answered("origin")
    seen = await sample(page)
    while not seen["app"]["loads_s"]:
        seen = await sample(page)
    own, other = seen["app"], seen["other"]
    assert own["requests_s"] == pytest.approx(4 * own["loads_s"] + 0.5, rel=0.01), "two replicas are added up"
    assert (own["replicas"], own["stampede_factor"]) == (2, 1.0)
    assert own["p99_ms"] <= 2.0
    assert (other["requests_s"], other["mode"], other["stampede_factor"]) == (7.0, "none", None)


async def test_at_the_end_every_stream_ends_and_nothing_runs_on(world: World) -> None:
    page = world.live.subscribe(Kind.PAGE, HELLO)
    await sample(page)
    world.live.end_streams()
    while await page.next(PATIENCE_S):
        pass
    assert not world.live.is_sampling
    await world.live.aclose(PATIENCE_S)
    assert {task for task in asyncio.all_tasks() if "_sample" in repr(task)} == set()
