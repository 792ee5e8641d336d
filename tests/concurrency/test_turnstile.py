from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from app.concurrency.turnstile import LONGEST_HOLD_S, LOOK_S, QUIET_LOOKS, Turnstile
from app.lab.simulation.virtual_time import run_virtually


async def test_a_crowd_passes_a_few_a_turn_in_the_order_in_which_it_came() -> None:
    turnstile = Turnstile(per_turn=3)
    passed: list[int] = []

    async def caller(number: int) -> None:
        await turnstile.passage()
        passed.append(number)

    crowd = [asyncio.create_task(caller(number)) for number in range(10)]
    seen = []
    while not all(task.done() for task in crowd):
        await asyncio.sleep(0)
        seen.append(len(passed))
    await asyncio.gather(*crowd)
    assert passed == list(range(10))
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 3


async def test_who_comes_alone_passes_without_waiting_a_turn() -> None:
    turnstile = Turnstile(per_turn=1)
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    asyncio.get_running_loop().call_soon(count)
    await turnstile.passage()
    assert turns == 0


async def test_others_have_their_turns_while_a_crowd_passes() -> None:
    turnstile = Turnstile(per_turn=2)
    crowd = [asyncio.create_task(turnstile.passage()) for _ in range(100)]
    turns = 0
    while not all(task.done() for task in crowd):
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 50


async def test_a_cancelled_caller_takes_nobodys_turn_and_is_not_waited_for() -> None:
    turnstile = Turnstile(per_turn=1)
    crowd = [asyncio.create_task(turnstile.passage()) for _ in range(6)]
    await asyncio.sleep(0)
    crowd[2].cancel()
    crowd[3].cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*crowd, return_exceptions=True), 1)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [False] * 2 + [True] * 2 + [
        False
    ] * 2
    assert len(turnstile) == 0


async def test_nothing_runs_on_when_nobody_comes() -> None:
    turnstile = Turnstile(per_turn=2)
    await turnstile.passage()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not turnstile._is_turn_due
    await turnstile.passage()


class Crowd:
    """Callers who pass through a turnstile, on a loop whose time is virtual."""

    def __init__(self, **arguments: int) -> None:
        self.turnstile = Turnstile(per_turn=2, **arguments)
        self.passed_at: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    def comes(self, callers: int) -> None:
        self._tasks += [asyncio.create_task(self._pass()) for _ in range(callers)]

    async def _pass(self) -> None:
        await self.turnstile.passage()
        self.passed_at.append(asyncio.get_running_loop().time())

    def leaves(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def all_passed(self) -> list[float]:
        await asyncio.gather(*self._tasks)
        return self.passed_at


def passed_at(*, times: int, callers: int, every_s: float) -> list[float]:
    """When each passed of so many callers that come again and again, through a turnstile for which 10 are a crowd."""

    async def come() -> list[float]:
        crowd = Crowd(crowd=10)
        for _ in range(times):
            crowd.comes(callers)
            await asyncio.sleep(every_s)
        return await crowd.all_passed()

    return run_virtually(come())


def test_a_crowd_that_is_coming_in_passes_once_all_of_it_is_there() -> None:
    first, second, *others = passed_at(times=4, callers=20, every_s=LOOK_S / 2)
    assert (first, second) == (0.0, 0.0)  # nobody waited yet
    assert len(others) == 78
    assert 1.5 * LOOK_S < min(others) <= max(others) <= 4 * LOOK_S


@pytest.mark.parametrize("look_s", [LOOK_S, LONGEST_HOLD_S / 3], ids=["looks in time", "late looks"])
def test_a_crowd_that_never_stops_coming_is_not_held_up_for_ever(
    monkeypatch: pytest.MonkeyPatch, look_s: float
) -> None:
    monkeypatch.setattr("app.concurrency.turnstile.LOOK_S", look_s)

    _, _, *others = passed_at(times=240, callers=15, every_s=LOOK_S / 2)
    assert LONGEST_HOLD_S <= min(others) < LONGEST_HOLD_S + look_s
    assert max(after - before for before, after in pairwise(others)) < LONGEST_HOLD_S + look_s


def test_a_crowd_is_not_held_up_by_a_few_who_come_behind_it() -> None:
    async def times() -> list[float]:
        crowd = Crowd(crowd=10)
        crowd.comes(20)
        for _ in range(50):
            await asyncio.sleep(LOOK_S / 4)
            crowd.comes(2)
        return await crowd.all_passed()

    assert run_virtually(times())[:20] == pytest.approx([0.0, 0.0, *[QUIET_LOOKS * LOOK_S] * 18])


def test_a_crowd_that_comes_in_spurts_passes_once_all_of_it_is_there() -> None:
    first, second, *others = passed_at(times=4, callers=20, every_s=1.5 * LOOK_S)
    assert (first, second) == (0.0, 0.0)
    assert min(others) > 4.5 * LOOK_S


def test_a_few_are_not_held_up_though_more_come() -> None:
    assert set(passed_at(times=5, callers=9, every_s=LOOK_S)) == {number * LOOK_S for number in range(5)}


@pytest.mark.parametrize("leave", [False, True], ids=["once it has passed", "once it has left"])
def test_the_next_crowd_is_taken_in_like_the_first(leave: bool) -> None:
    async def times() -> list[float]:
        crowd = Crowd(crowd=10)
        crowd.comes(40)
        await asyncio.sleep(LOOK_S / 2)
        if leave:
            crowd.leaves()
        await asyncio.sleep(1.0)
        crowd.passed_at.clear()
        crowd.comes(40)
        return await crowd.all_passed()

    began = 1.0 + LOOK_S / 2
    assert run_virtually(times()) == pytest.approx([began, began, *[began + QUIET_LOOKS * LOOK_S] * 38])
