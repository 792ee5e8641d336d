from __future__ import annotations

import asyncio

from app.concurrency.turnstile import Turnstile


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
