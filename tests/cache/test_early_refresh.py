"""Early refreshes of processes that have no lease: one load a process all the same, and none that another has made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from app.cache.origin import Loaded
from app.lab.process import Process, Shape
from app.lab.simulation.recorded_events import RecordedEvents
from app.lab.simulation.redis_model import ModelClient, ModelServer
from app.lab.simulation.virtual_time import VirtualTimeLoop

TTL_S, LOAD_S = 30.0, 1.0
EARLY = 1.0 - 2.0**-20
"""Drawn, it asks for a refresh 13 loads' times before the expiry."""
NEVER = 0.0


class World:
    """Processes over one Redis and one origin, which dates its loads. What they draw is `draw`."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loads: list[float] = []
        self.draw = NEVER
        self._loop = loop
        self._server = ModelServer(loop.time, latency_s=0.001)

    async def _load(self, _key: str) -> Loaded:
        self.loads.append(self._loop.time())
        await asyncio.sleep(LOAD_S)
        return Loaded(b"%d" % len(self.loads), 1)

    def process(self) -> tuple[Process, RecordedEvents]:
        events = RecordedEvents()
        shape = Shape("full", ttl_s=TTL_S, beta=1.0, lease=False)
        client = ModelClient(self._server).as_redis()
        process = Process(
            client, self._load, shape, events, now=self._loop.wall, timer=self._loop.time, pick=lambda: self.draw
        )
        process.start()
        return process, events

    async def until(self, at: float) -> None:
        await asyncio.sleep(at - self._loop.time())


def virtually(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main)


def _world() -> World:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return World(loop)


def test_who_finds_the_value_expired_while_it_is_being_refreshed_waits_for_that_load() -> None:
    async def main() -> None:
        world = _world()
        process, events = world.process()
        await process.loader.read("1")
        await world.until(TTL_S - 0.4)
        world.draw = EARLY
        assert process.loader.fresh("1") is not None  # it begins the refresh
        await world.until(TTL_S + 0.2)
        late = await asyncio.gather(*(process.loader.read("1") for _ in range(3)))
        assert {(reading.payload, reading.source) for reading in late} == {(b"2", "shared")}
        assert len(world.loads) == 2
        assert events.counts["early refresh"] == 1
        await process.aclose()

    virtually(main())


def test_an_early_refresh_takes_what_another_process_has_loaded_since() -> None:
    async def main() -> None:
        world = _world()
        (first, _), (second, events) = world.process(), world.process()
        await first.loader.read("1")
        await second.loader.read("1")
        await world.until(TTL_S - 5.0)
        world.draw = EARLY
        first.loader.fresh("1")
        await world.until(TTL_S - 3.0)
        second.loader.fresh("1")
        await asyncio.sleep(0.1)
        world.draw = NEVER
        slot = second.loader.fresh("1")
        assert slot is not None
        assert slot.payload == b"2"
        assert len(world.loads) == 2
        assert events.counts["early refresh"] == 1
        await first.aclose()
        await second.aclose()

    virtually(main())


def test_a_value_that_is_still_the_newest_is_loaded_anew_though_redis_holds_it_fresh() -> None:
    async def main() -> None:
        world = _world()
        process, _ = world.process()
        await process.loader.read("1")
        await world.until(TTL_S - 3.0)
        world.draw = EARLY
        process.loader.fresh("1")
        await asyncio.sleep(2 * LOAD_S)
        assert len(world.loads) == 2
        await process.aclose()

    virtually(main())
