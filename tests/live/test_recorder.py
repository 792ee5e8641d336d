"""Stampedes as they are drawn, with every interleaving forced: the clock is the test's, and loads end when it says."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from app.cache.loader import Reading
from app.cache.origin import Loaded
from app.cache.protection import Mutex, Protection, Singleflight, Unprotected
from app.live import recorder as recorder_module
from app.live.drawing import parse
from app.live.recorded import RecordedFlights, recorded_load
from app.live.recorder import LEAST_CALLERS, MAX_KEYS, MAX_LANES, Recorder


class World:
    """A read path of one protection, whose loads last until `land`."""

    def __init__(self, protection: Protection) -> None:
        self.time = 100.0
        self.drawn: list[dict[str, Any]] = []
        self.recorder = Recorder(
            self.drawn.append, app="app", mode="test", now=lambda: 5_000.0, timer=lambda: self.time
        )
        self.recorder.switch(on=True)
        self.flights = RecordedFlights(protection)
        self.loads: list[asyncio.Future[None]] = []
        self.held = False
        self.load = recorded_load(self._load, self.recorder)

    async def _load(self, key: str) -> Loaded:
        landed = asyncio.get_running_loop().create_future()
        self.loads.append(landed)
        await landed
        self.held = True
        return Loaded(b"{}", 1)

    async def _read(self, key: str) -> Reading:
        if self.held:
            return Reading(b"{}", 1, 0.0, "l1")

        async def look() -> Loaded | None:
            await asyncio.sleep(0)
            return Loaded(b"{}", 1) if self.held else None

        async def fill() -> Loaded:
            return await self.load(key)

        before = len(self.loads)
        _, shared = await self.flights.read(key, look, fill)
        return Reading(b"{}", 1, 0.0, "shared" if shared else "origin" if len(self.loads) > before else "l2")

    async def come(self, key: str = "7") -> asyncio.Task[Reading]:
        """A caller, who has gone as far as it can by itself."""
        caller = asyncio.create_task(self.recorder.read(key, self._read))
        await settle()
        return caller

    def land(self) -> None:
        """Every load under way ends."""
        for load in self.loads:
            if not load.done():
                load.set_result(None)

    def sweep(self, after_s: float = 1.0) -> list[dict[str, Any]]:
        """What is drawn when so much time has passed."""
        self.time += after_s
        self.recorder._sweep()
        for picture in self.drawn:
            assert parse(picture, "app") == picture, "it is what another application takes"
        return self.drawn


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def ons(lane: dict[str, Any]) -> list[str]:
    return [wait["on"] for wait in lane["waits"]]


@pytest.fixture
def flights() -> World:
    return World(Singleflight(max_waiters=None, wait_timeout_s=None))


async def test_one_loads_the_others_wait_for_its_flight_and_who_comes_late_finds_the_value(flights: World) -> None:
    callers = []
    for _ in range(LEAST_CALLERS):
        callers.append(await flights.come())
        flights.time += 0.001
    flights.time += 0.05
    flights.land()
    await asyncio.gather(*callers)
    await (await flights.come())
    (picture,) = flights.sweep()
    assert (picture["key"], picture["callers"], picture["loads"]) == ("7", LEAST_CALLERS + 1, 1)
    assert [lane["end"] for lane in picture["lanes"]] == ["loaded", *["shared"] * (LEAST_CALLERS - 1), "hit"]
    assert [ons(lane) for lane in picture["lanes"]] == [["load"], *[["flight"]] * (LEAST_CALLERS - 1), ["l1"]]
    first, second = picture["lanes"][:2]
    assert (first["came_ms"], second["came_ms"]) == (0.0, 1.0)
    assert first["waits"][0]["to_ms"] == first["left_ms"] == picture["took_ms"] == pytest.approx(55, abs=0.1)


async def test_without_protection_everybody_loads() -> None:
    world = World(Unprotected())
    callers = [await world.come() for _ in range(LEAST_CALLERS)]
    world.land()
    await asyncio.gather(*callers)
    (picture,) = world.sweep()
    assert picture["loads"] == LEAST_CALLERS
    assert {tuple(ons(lane)) for lane in picture["lanes"]} == {("load",)}


async def test_with_a_mutex_the_others_wait_for_the_lock_and_look_again() -> None:
    world = World(Mutex(max_waiters=None, wait_timeout_s=None))
    callers = [await world.come() for _ in range(LEAST_CALLERS)]
    world.land()
    await asyncio.gather(*callers)
    (picture,) = world.sweep()
    assert picture["loads"] == 1
    ends = Counter((lane["end"], ons(lane)[-1]) for lane in picture["lanes"])
    assert ends == {("loaded", "load"): 1, ("hit", "lock"): LEAST_CALLERS - 1}


async def test_fewer_callers_are_no_stampede(flights: World) -> None:
    callers = [await flights.come() for _ in range(LEAST_CALLERS - 1)]
    flights.land()
    await asyncio.gather(*callers)
    assert flights.sweep() == []


async def test_callers_one_after_the_other_are_no_stampede_however_many(flights: World) -> None:
    flights.held = True
    for _ in range(10 * LEAST_CALLERS):
        await (await flights.come())
    assert flights.sweep() == []
    assert flights.recorder.crowd("7") is None


async def test_a_load_that_fails_and_a_caller_who_leaves_are_shown_as_that(flights: World) -> None:
    callers = [await flights.come() for _ in range(LEAST_CALLERS)]
    callers[-1].cancel()
    await settle()
    flights.loads[0].set_exception(OSError("down"))
    ended = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(end, OSError | asyncio.CancelledError) for end in ended)
    (picture,) = flights.sweep()
    assert [lane["end"] for lane in picture["lanes"]] == [*["failed"] * (LEAST_CALLERS - 1), "left"]


async def test_who_loads_is_shown_though_who_asked_first_has_left_meanwhile(flights: World) -> None:
    callers = [await flights.come() for _ in range(LEAST_CALLERS)]
    callers[0].cancel()
    await settle()
    flights.time += 0.05
    flights.land()
    await asyncio.gather(*callers[1:])
    (picture,) = flights.sweep()
    assert picture["loads"] == 1
    assert picture["lanes"][0]["end"] == "left"
    assert picture["lanes"][0]["left_ms"] < 50, "what went on without it is not drawn as its wait"


async def test_it_is_not_over_while_the_load_is_under_way_however_long_nobody_comes(flights: World) -> None:
    callers = [await flights.come() for _ in range(LEAST_CALLERS)]
    assert flights.sweep(after_s=2.0) == []
    flights.land()
    await asyncio.gather(*callers)
    assert flights.sweep(after_s=0.1) == [], "some may come yet"
    assert len(flights.sweep(after_s=0.3)) == 1


async def test_one_that_never_ends_is_drawn_as_far_as_it_has_come() -> None:
    world = World(Unprotected())
    first = [await world.come() for _ in range(LEAST_CALLERS)]
    world.land()
    await asyncio.gather(*first)
    world.held = False
    second = [await world.come() for _ in range(3)]
    (picture,) = world.sweep(after_s=recorder_module.LONGEST_S)
    assert len(picture["lanes"]) == LEAST_CALLERS
    world.land()
    await asyncio.gather(*second)


@pytest.mark.parametrize("callers", [MAX_LANES, MAX_LANES + 1, 1_000, 5_000])
async def test_of_very_many_the_lanes_are_evenly_chosen_and_the_one_who_loads_is_among_them(callers: int) -> None:
    world = World(Singleflight(max_waiters=None, wait_timeout_s=None))
    waiting = [asyncio.create_task(world.recorder.read("7", world._read)) for _ in range(callers)]
    await settle()
    world.land()
    await asyncio.gather(*waiting)
    (picture,) = world.sweep()
    numbers = [lane["n"] for lane in picture["lanes"]]
    assert (picture["callers"], len(numbers), numbers[0]) == (callers, MAX_LANES, 1)
    assert [lane["end"] for lane in picture["lanes"]].count("loaded") == 1
    gaps = [after - before for before, after in itertools.pairwise(numbers)]
    assert min(gaps) >= 1
    assert max(gaps) <= 4 * callers / MAX_LANES


@pytest.mark.parametrize("loading", [MAX_LANES + 1, 1_000, 3_000])
async def test_where_very_many_load_the_lanes_are_as_few_and_as_evenly_chosen(loading: int) -> None:
    world = World(Unprotected())
    callers = [asyncio.create_task(world.recorder.read("7", world._read)) for _ in range(loading)]
    await settle()
    world.land()
    await asyncio.gather(*callers)
    late = [asyncio.create_task(world.recorder.read("7", world._read)) for _ in range(loading)]
    await asyncio.gather(*late)
    (picture,) = world.sweep()
    numbers = [lane["n"] for lane in picture["lanes"]]
    assert (picture["callers"], picture["loads"], len(numbers)) == (2 * loading, loading, MAX_LANES)
    assert max(after - before for before, after in itertools.pairwise(numbers)) <= 8 * loading / MAX_LANES
    assert numbers[0] <= 8 * loading / MAX_LANES
    assert numbers[-1] >= 2 * loading - 8 * loading / MAX_LANES


async def test_of_several_that_end_together_the_largest_is_drawn(flights: World) -> None:
    callers = [await flights.come(key) for key in ["1"] * LEAST_CALLERS + ["2"] * (LEAST_CALLERS + 1)]
    flights.land()
    await asyncio.gather(*callers)
    (picture,) = flights.sweep()
    assert picture["key"] == "2"


async def test_so_many_keys_are_recorded_and_reads_of_others_go_on_unrecorded(flights: World) -> None:
    callers = [await flights.come(str(key)) for key in range(MAX_KEYS + 10)]
    assert flights.recorder.crowd(str(MAX_KEYS - 1)) is not None
    assert flights.recorder.crowd(str(MAX_KEYS)) is None
    flights.land()
    await asyncio.gather(*callers)


async def test_when_nobody_looks_any_more_nothing_is_kept_and_who_waits_is_not_disturbed(flights: World) -> None:
    callers = [await flights.come() for _ in range(LEAST_CALLERS)]
    flights.recorder.switch(on=False)
    assert flights.recorder.crowd("7") is None
    flights.land()
    assert [(await caller).source for caller in callers].count("origin") == 1
    await (await flights.come("8"))
    assert flights.recorder.crowd("8") is None
    assert flights.drawn == []
