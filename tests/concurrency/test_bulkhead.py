"""So many at a time and so many waiting, in every interleaving of coming, being served, cancelled and timed out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.concurrency.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError


def bulkhead(concurrent: int = 1, queued: int = 100, wait_timeout_s: float | None = 60.0) -> Bulkhead:
    return Bulkhead(concurrent=concurrent, queued=queued, wait_timeout_s=wait_timeout_s)


class Crowd:
    """Callers that, once served, note their name and hold the slot until they are told to leave."""

    def __init__(self, guarded: Bulkhead) -> None:
        self.bulkhead = guarded
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(self, *names: str) -> None:
        """Callers, one after the other; the key of each is the first letter of its name."""
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._call(name))
            await settle()

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
            await self.tasks[name]
            await settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
            with pytest.raises(asyncio.CancelledError):
                await self.tasks[name]

    async def serve_all(self) -> list[str]:
        """Everybody who is served from now on, in that order, each leaving before the next comes."""
        first = len(self.served) - self.bulkhead.in_use
        served = first
        while served < len(self.served):
            await self.leave(self.served[served])
            served += 1
        return self.served[first:]

    def release(self, name: str) -> None:
        """Tell a caller to leave, without letting it."""
        self._leave[name].set()

    async def _call(self, name: str) -> None:
        async with self.bulkhead.slot(name[0]):
            self.served.append(name)
            await self._leave[name].wait()


async def settle() -> None:
    """Lets every task that can run come to its next wait."""
    for _ in range(10):
        await asyncio.sleep(0)


def is_empty(guarded: Bulkhead) -> bool:
    return (guarded.in_use, guarded.waiting) == (0, 0)


async def test_so_many_are_served_at_once_and_the_others_wait() -> None:
    guarded = bulkhead(concurrent=2)
    crowd = Crowd(guarded)
    await crowd.come("a1", "b1", "c1", "d1")
    assert (crowd.served, guarded.in_use, guarded.waiting) == (["a1", "b1"], 2, 2)
    await crowd.leave("b1")
    assert (crowd.served, guarded.in_use, guarded.waiting) == (["a1", "b1", "c1"], 2, 1)
    await crowd.leave("a1", "c1", "d1")
    assert is_empty(guarded)


async def test_the_slot_comes_back_when_the_work_raises() -> None:
    guarded = bulkhead()
    with pytest.raises(LookupError):
        async with guarded.slot("a"):
            raise LookupError
    assert is_empty(guarded)


async def test_within_a_key_who_came_first_is_served_first() -> None:
    crowd = Crowd(bulkhead())
    await crowd.come("a1", "a2", "a3", "a4")
    assert await crowd.serve_all() == ["a1", "a2", "a3", "a4"]


async def test_keys_take_turns_so_that_a_hot_one_does_not_starve_the_cold_ones() -> None:
    crowd = Crowd(bulkhead())
    await crowd.come("h1", *(f"h{number}" for number in range(2, 7)), "c1", "d1", "c2")
    assert await crowd.serve_all() == ["h1", "h2", "c1", "d1", "h3", "c2", "h4", "h5", "h6"]


async def test_a_key_that_keeps_coming_does_not_get_two_turns_while_another_waits() -> None:
    crowd = Crowd(bulkhead())
    await crowd.come("h1", "h2", "c1")
    await crowd.leave("h1")
    await crowd.come("h3", "d1")
    assert await crowd.serve_all() == ["h2", "c1", "h3", "d1"]


async def test_a_newcomer_never_overtakes_one_that_was_handed_the_slot_but_has_not_gone_on_yet() -> None:
    guarded = bulkhead()
    crowd = Crowd(guarded)
    await crowd.come("a1", "b1")
    crowd.release("a1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await crowd.come("c1")
    assert crowd.served == ["a1", "b1"]
    assert await crowd.serve_all() == ["b1", "c1"]


async def test_past_a_full_queue_callers_are_refused_at_once() -> None:
    guarded = bulkhead(queued=2)
    crowd = Crowd(guarded)
    await crowd.come("a1", "b1", "c1")
    with pytest.raises(BulkheadFullError, match="2 callers wait already"):
        await guarded.slot("d").__aenter__()
    assert (guarded.in_use, guarded.waiting) == (1, 2)
    assert await crowd.serve_all() == ["a1", "b1", "c1"]


async def test_without_a_queue_nobody_waits() -> None:
    guarded = bulkhead(queued=0)
    async with guarded.slot("a"):
        with pytest.raises(BulkheadFullError):
            await guarded.slot("b").__aenter__()
    async with guarded.slot("b"):
        assert guarded.in_use == 1


async def test_a_cold_key_takes_the_place_of_the_hot_ones_last() -> None:
    guarded = bulkhead(queued=3)
    crowd = Crowd(guarded)
    await crowd.come("h1", "h2", "h3", "h4", "c1")
    with pytest.raises(BulkheadFullError, match="most of them for one key"):
        await crowd.tasks["h4"]
    assert guarded.waiting == 3
    assert await crowd.serve_all() == ["h1", "h2", "c1", "h3"]


async def test_a_hot_key_cannot_push_anyone_out() -> None:
    guarded = bulkhead(queued=3)
    crowd = Crowd(guarded)
    await crowd.come("h1", "c1", "h2", "h3")
    with pytest.raises(BulkheadFullError, match=r"3 callers wait already$"):
        await guarded.slot("h").__aenter__()
    assert await crowd.serve_all() == ["h1", "c1", "h2", "h3"]


async def test_places_do_not_change_hands_between_keys_that_wait_as_much() -> None:
    """Else each would push out the other, and the queue serve only the last to come."""
    guarded = bulkhead(queued=4)
    crowd = Crowd(guarded)
    await crowd.come("x1", "a1", "a2", "b1", "b2")
    for key in "ab":
        with pytest.raises(BulkheadFullError):
            await guarded.slot(key).__aenter__()
    await crowd.come("c1")
    assert guarded.waiting == 4
    with pytest.raises(BulkheadFullError):
        await guarded.slot("c").__aenter__()
    for name in ("a2", "b2"):
        crowd.tasks[name].cancel()
    outcomes = await asyncio.gather(crowd.tasks["a2"], crowd.tasks["b2"], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BulkheadFullError, asyncio.CancelledError]


async def test_one_pushed_out_and_cancelled_in_the_same_tick_is_cancelled_and_says_nothing_more() -> None:
    guarded = bulkhead(queued=2)
    crowd = Crowd(guarded)
    await crowd.come("h1", "h2", "h3")
    coming = asyncio.create_task(crowd.come("c1"))
    await asyncio.sleep(0)  # the newcomer is made, and comes in the next tick
    asyncio.get_running_loop().call_soon(crowd.tasks["h3"].cancel)
    await coming
    await settle()
    assert crowd.tasks["h3"].cancelled()
    assert await crowd.serve_all() == ["h1", "h2", "c1"]
    assert is_empty(guarded)


async def test_one_cancelled_and_then_pushed_out_in_the_same_tick_makes_its_place_free_all_the_same() -> None:
    guarded = bulkhead(queued=2)
    crowd = Crowd(guarded)
    await crowd.come("h1", "h2", "h3")
    newcomer = asyncio.create_task(crowd.come("c1"))
    await asyncio.sleep(0)
    crowd.tasks["h3"].cancel()  # the newcomer is ahead of it in this tick
    await newcomer
    assert crowd.tasks["h3"].cancelled()
    assert await crowd.serve_all() == ["h1", "h2", "c1"]
    assert is_empty(guarded)


async def test_a_wait_ends_after_its_time_and_frees_its_place() -> None:
    guarded = bulkhead(wait_timeout_s=0.02)
    async with guarded.slot("a"):
        with pytest.raises(BulkheadTimeoutError, match=r"no slot within 0\.02 s") as caught:
            await guarded.slot("b").__aenter__()
        assert isinstance(caught.value, TimeoutError)
        assert (guarded.in_use, guarded.waiting) == (1, 0)
    assert is_empty(guarded)


async def test_the_time_bounds_the_wait_and_not_the_work() -> None:
    guarded = bulkhead(wait_timeout_s=0.01)
    async with guarded.slot("a"):
        await asyncio.sleep(0.03)
    assert is_empty(guarded)


async def test_a_timeout_of_the_work_is_not_taken_for_one_of_the_wait() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with bulkhead(wait_timeout_s=5.0).slot("a"):
            raise TimeoutError("the work's own")
    assert not isinstance(caught.value, BulkheadTimeoutError)


async def test_a_callers_own_deadline_around_the_wait_stays_its_own() -> None:
    guarded = bulkhead()
    async with guarded.slot("a"):
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await guarded.slot("b").__aenter__()
        assert not isinstance(caught.value, BulkheadTimeoutError)
        assert guarded.waiting == 0


async def test_a_wait_may_be_without_end() -> None:
    crowd = Crowd(bulkhead(wait_timeout_s=None))
    await crowd.come("a1", "a2")
    assert await crowd.serve_all() == ["a1", "a2"]


async def test_a_cancelled_waiter_leaves_the_queue_and_its_turn_to_the_next() -> None:
    guarded = bulkhead()
    crowd = Crowd(guarded)
    await crowd.come("a1", "b1", "c1")
    await crowd.cancel("b1")
    assert guarded.waiting == 1
    assert await crowd.serve_all() == ["a1", "c1"]
    assert is_empty(guarded)


async def test_a_cancelled_holder_hands_its_slot_on() -> None:
    guarded = bulkhead()
    crowd = Crowd(guarded)
    await crowd.come("a1", "b1")
    await crowd.cancel("a1")
    await settle()
    assert crowd.served == ["a1", "b1"]
    await crowd.leave("b1")
    assert is_empty(guarded)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("released_first", [True, False])
async def test_a_waiter_cancelled_around_the_moment_of_its_turn_loses_no_slot(steps: int, released_first: bool) -> None:
    """Cancelled up to so many steps after, or before, the holder is told to leave: before, at, and after the grant."""
    guarded = bulkhead()
    crowd = Crowd(guarded)
    await crowd.come("a1", "b1", "c1")
    first, then = crowd.tasks["b1"].cancel, lambda: crowd.release("a1")
    for action in (then, first) if released_first else (first, then):
        action()
        for _ in range(steps):
            await asyncio.sleep(0)
    await settle()
    assert crowd.tasks["b1"].cancelled()
    assert crowd.served[-1] == "c1"
    await crowd.leave("c1")
    assert is_empty(guarded)


async def test_one_whose_time_runs_out_in_the_tick_of_its_turn_loses_no_slot() -> None:
    """Whichever of the two comes first, the slot is held or free afterwards."""
    for head_start in (0, 1, 2, 3):
        guarded = bulkhead(wait_timeout_s=0.02)
        crowd = Crowd(guarded)
        await crowd.come("a1", "b1")
        time.sleep(0.03)  # noqa: ASYNC251 - the timer is to be due, and not to have run
        crowd.release("a1")
        for _ in range(head_start):
            await asyncio.sleep(0)
        await settle()
        if "b1" in crowd.served:
            await crowd.leave("b1")
        else:
            with pytest.raises(BulkheadTimeoutError):
                await crowd.tasks["b1"]
        assert is_empty(guarded)


async def test_a_waiter_whose_coroutine_is_closed_leaves_the_queue() -> None:
    guarded = bulkhead()
    async with guarded.slot("a"):

        async def call() -> None:
            async with guarded.slot("b"):
                raise AssertionError("served")

        waiting = call()
        waiting.send(None)
        assert guarded.waiting == 1
        waiting.close()
        assert guarded.waiting == 0
    assert is_empty(guarded)


async def test_all_at_once_and_a_third_of_them_cancelled_nothing_is_lost_and_no_bound_is_passed() -> None:
    guarded = bulkhead(concurrent=7, queued=300)
    most = served = 0

    async def call(number: int) -> None:
        nonlocal most, served
        async with guarded.slot(number % 13):
            most = max(most, guarded.in_use)
            assert guarded.waiting <= 300
            await asyncio.sleep(0)
            served += 1

    tasks = [asyncio.create_task(call(number)) for number in range(500)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.sleep(0)
    outcomes = Counter(type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True))
    assert is_empty(guarded)
    assert most <= 7
    assert served <= outcomes[type(None)] + outcomes[asyncio.CancelledError]
    assert set(outcomes) <= {type(None), asyncio.CancelledError, BulkheadFullError}


async def test_many_distinct_keys_leave_nothing_behind_and_refusing_costs_the_same_however_many_wait() -> None:
    """Looking through all lines for the longest would cost far more, and nobody else would be served in it."""

    async def refusing(queued: int) -> float:
        """Seconds of this process' time."""
        guarded = bulkhead(queued=queued)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(guarded.slot("holder"))
            waiting = [asyncio.create_task(guarded.slot(key).__aenter__()) for key in range(queued)]
            await settle()
            assert guarded.waiting == queued
            began = time.process_time()
            for key in range(5_000, 7_000):
                try:
                    await guarded.slot(key).__aenter__()
                except BulkheadFullError:
                    continue
                pytest.fail("it was let in")
            taken = time.process_time() - began
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert is_empty(guarded)
        assert not guarded._queue._lines
        assert not guarded._queue._by_length
        return taken

    # The quickest of some: what else the machine does makes none quicker.
    times = [(await refusing(10), await refusing(2_000)) for _ in range(5)]
    assert min(many for _, many in times) < 5 * min(few for few, _ in times)


@pytest.mark.parametrize(
    "wrong", [{"concurrent": 0}, {"queued": -1}, {"wait_timeout_s": 0.0}, {"wait_timeout_s": float("nan")}]
)
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        bulkhead(**wrong)
