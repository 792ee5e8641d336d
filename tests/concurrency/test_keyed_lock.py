"""One holder a key, in every interleaving of coming, waiting, leaving and being cancelled."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from app.concurrency.keyed_lock import KeyedLock, TooManyWaitersError

KEY = "key"


class Worker:
    """A task that takes the key, notes it, and holds it until it is told to leave."""

    def __init__(self, locks: KeyedLock, log: list[str], name: str, key: str = KEY) -> None:
        self.name = name
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(locks, log, key))

    async def _run(self, locks: KeyedLock, log: list[str], key: str) -> None:
        async with locks.holding(key):
            log.append(self.name)
            await self.leave.wait()

    async def finish(self) -> None:
        self.leave.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def settle() -> None:
    """Lets every task that can run come to its next wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def line_up(locks: KeyedLock, log: list[str], names: str) -> list[Worker]:
    """Workers on one key, in order: the first holds it, the others wait."""
    workers = []
    for name in names:
        workers.append(Worker(locks, log, name))
        await settle()
    assert log == [names[0]]
    return workers


async def test_holders_of_one_key_follow_each_other_in_the_order_in_which_they_came() -> None:
    locks, log = KeyedLock(), list[str]()
    workers = await line_up(locks, log, "abcde")
    for count, worker in enumerate(workers, start=1):
        assert log == list("abcde"[:count])
        await worker.finish()
        await settle()
    assert len(locks) == 0


async def test_different_keys_do_not_wait_for_each_other() -> None:
    locks, log = KeyedLock(), list[str]()
    workers = [Worker(locks, log, name, key=name) for name in "abc"]
    await settle()
    assert log == ["a", "b", "c"]
    assert len(locks) == 3
    for worker in workers:
        await worker.finish()
    assert len(locks) == 0


async def test_nobody_cuts_in_between_the_release_and_the_next_in_line() -> None:
    locks, log = KeyedLock(), list[str]()
    async with locks.holding(KEY):
        waiter = Worker(locks, log, "waiter")
        waiter.leave.set()
        await settle()
    # The waiter has not run since the release; this task, which never stopped running, asks again at once.
    async with locks.holding(KEY):
        log.append("latecomer")
    assert log == ["waiter", "latecomer"]
    await waiter.task


async def test_an_error_in_the_block_passes_and_frees_the_key() -> None:
    locks = KeyedLock()
    with pytest.raises(LookupError):
        async with locks.holding(KEY):
            raise LookupError
    assert len(locks) == 0


async def test_cancelling_the_holder_wakes_the_next() -> None:
    locks, log = KeyedLock(), list[str]()
    holder, waiter = await line_up(locks, log, "ab")
    await holder.cancel()
    await settle()
    assert log == ["a", "b"]
    await waiter.finish()
    assert len(locks) == 0


@pytest.mark.parametrize("which", [1, 2, 3])
async def test_cancelling_a_waiter_anywhere_in_line_affects_only_that_one(which: int) -> None:
    locks, log = KeyedLock(), list[str]()
    workers = await line_up(locks, log, "abcd")
    gone = workers.pop(which)
    await gone.cancel()
    for worker in workers:
        await worker.finish()
    assert log == [name for name in "abcd" if name != gone.name]
    assert len(locks) == 0


async def test_a_waiter_cancelled_just_after_the_key_was_handed_to_it_passes_it_on() -> None:
    locks, log = KeyedLock(), list[str]()
    async with locks.holding(KEY):
        second, third = Worker(locks, log, "second"), Worker(locks, log, "third")
        await settle()
    # The key is the second's, who has not run since: leaving the block above did not let go of the loop.
    await second.cancel()
    await settle()
    assert log == ["third"]
    await third.finish()
    assert len(locks) == 0


async def test_a_waiter_cancelled_just_before_the_release_is_skipped() -> None:
    locks, log = KeyedLock(), list[str]()
    async with locks.holding(KEY):
        second, third = Worker(locks, log, "second"), Worker(locks, log, "third")
        await settle()
        second.task.cancel()
    await settle()
    assert second.task.cancelled()
    assert log == ["third"]
    await third.finish()
    assert len(locks) == 0


async def test_when_all_are_cancelled_at_once_the_key_is_free_and_nothing_is_kept() -> None:
    locks, log = KeyedLock(), list[str]()
    workers = await line_up(locks, log, "abcdef")
    for worker in workers:
        worker.task.cancel()
    await asyncio.gather(*(worker.task for worker in workers), return_exceptions=True)
    assert log == ["a"]
    assert len(locks) == 0


async def test_a_caller_cancelled_before_its_first_step_takes_nothing() -> None:
    locks, log = KeyedLock(), list[str]()
    await Worker(locks, log, "a").cancel()
    assert log == []
    assert len(locks) == 0


async def test_a_waiter_gives_up_after_its_time_and_the_line_goes_on() -> None:
    locks, log = KeyedLock(timeout_s=0.01), list[str]()
    async with locks.holding(KEY):
        with pytest.raises(TimeoutError):
            await Worker(locks, log, "a").task
        assert len(locks) == 1
    assert log == []
    assert len(locks) == 0


async def test_a_waiter_whose_time_is_up_in_the_tick_of_its_turn_never_loses_the_key() -> None:
    """Which of the two comes first is the event loop's affair: asyncio's own hands over, uvloop times out."""
    locks, log = KeyedLock(timeout_s=0.02), list[str]()
    async with locks.holding(KEY):
        late = Worker(locks, log, "late")
        late.leave.set()
        await settle()
        time.sleep(0.03)  # noqa: ASYNC251 - the loop must find the timer due and the key free in the same tick
    [outcome] = await asyncio.gather(late.task, return_exceptions=True)
    assert (type(outcome), log) in [(type(None), ["late"]), (TimeoutError, [])]
    assert len(locks) == 0


async def test_the_time_bounds_waiting_and_not_holding() -> None:
    locks = KeyedLock(timeout_s=0.01)
    async with locks.holding(KEY):
        await asyncio.sleep(0.03)
    assert len(locks) == 0


async def test_one_waiter_too_many_is_refused_at_once_and_the_others_stay() -> None:
    locks, log = KeyedLock(max_waiters=2), list[str]()
    holder, *waiters = await line_up(locks, log, "abc")
    with pytest.raises(TooManyWaitersError):
        await Worker(locks, log, "d").task
    await holder.finish()
    for waiter in waiters:
        await waiter.finish()
    assert log == ["a", "b", "c"]
    assert len(locks) == 0


async def test_a_waiter_that_leaves_makes_room_for_another() -> None:
    locks, log = KeyedLock(max_waiters=1), list[str]()
    holder, waiter = await line_up(locks, log, "ab")
    await waiter.cancel()
    successor = Worker(locks, log, "c")
    await settle()
    await holder.finish()
    await successor.finish()
    assert log == ["a", "c"]


async def test_the_bound_is_for_each_key() -> None:
    locks, log = KeyedLock(max_waiters=0), list[str]()
    workers = [Worker(locks, log, name, key=name) for name in "ab"]
    await settle()
    with pytest.raises(TooManyWaitersError):
        await Worker(locks, log, "c", key="a").task
    for worker in workers:
        await worker.finish()
    assert log == ["a", "b"]


async def test_a_task_that_asks_for_a_key_it_holds_is_told_instead_of_hanging() -> None:
    locks = KeyedLock()
    async with locks.holding(KEY):
        with pytest.raises(RuntimeError, match="already"):
            async with locks.holding(KEY):
                pytest.fail("a key was held twice")
        async with locks.holding("another key"):
            pass
    assert len(locks) == 0


async def test_a_task_that_was_handed_the_key_is_known_as_its_holder() -> None:
    locks = KeyedLock()

    async def reenter() -> None:
        async with locks.holding(KEY), locks.holding(KEY):
            pytest.fail("a key was held twice")

    async with locks.holding(KEY):
        waiter = asyncio.create_task(reenter())
        await settle()
    with pytest.raises(RuntimeError, match="already"):
        await waiter
    assert len(locks) == 0


async def test_ten_thousand_keys_leave_nothing() -> None:
    locks, counts = KeyedLock(), dict.fromkeys(range(10_000), 0)

    async def add(key: int) -> None:
        async with locks.holding(key):
            count = counts[key]
            await asyncio.sleep(0)
            counts[key] = count + 1

    await asyncio.gather(*(add(key) for key in counts for _ in range(2)))
    assert set(counts.values()) == {2}
    assert len(locks) == 0


async def test_ten_thousand_waiters_for_one_key_can_leave_in_any_order() -> None:
    locks, log = KeyedLock(), list[str]()
    async with locks.holding(KEY):
        workers = [Worker(locks, log, str(number)) for number in range(10_000)]
        await settle()
        random.Random(1).shuffle(workers)
        for worker in workers:
            worker.task.cancel()
        await asyncio.gather(*(worker.task for worker in workers), return_exceptions=True)
    assert log == []
    assert len(locks) == 0


@pytest.mark.parametrize("seed", range(20))
async def test_random_comings_goings_and_cancellations_never_put_two_in_the_block_or_lose_the_key(seed: int) -> None:
    locks, inside, chance = KeyedLock(), dict.fromkeys("abc", 0), random.Random(seed)

    async def work() -> None:
        key = chance.choice("abc")
        async with locks.holding(key):
            inside[key] += 1
            try:
                assert inside[key] == 1
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                inside[key] -= 1

    tasks = []
    for _ in range(300):
        tasks.append(asyncio.create_task(work()))
        if chance.random() < 0.5:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
    assert len(locks) == 0


@pytest.mark.parametrize(("max_waiters", "timeout_s"), [(-1, None), (None, 0.0), (None, -1.0), (None, float("nan"))])
def test_limits_that_make_no_sense_are_refused(max_waiters: int | None, timeout_s: float | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        KeyedLock(max_waiters=max_waiters, timeout_s=timeout_s)
