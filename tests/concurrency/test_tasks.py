"""Background tasks that somebody owns: referenced, bounded, heard of when they fail, and ended with their owner."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable

import pytest

from app.concurrency.tasks import TaskSet


class Work:
    """Waits until it is let go; `ended` says how it ended."""

    def __init__(self, unwind: Callable[[], Awaitable[None]] | None = None) -> None:
        self.go = asyncio.Event()
        self.ended = ""
        self._unwind = unwind

    async def run(self) -> None:
        try:
            await self.go.wait()
            self.ended = "done"
        except asyncio.CancelledError:
            if self._unwind is not None:
                await self._unwind()
            self.ended = "cancelled"
            raise


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_task_is_counted_while_it_runs_and_forgotten_when_it_ends() -> None:
    tasks, work = TaskSet(limit=10), Work()
    task = tasks.start(work.run())
    assert task is not None
    await settle()
    assert len(tasks) == 1
    work.go.set()
    await task
    await settle()
    assert (len(tasks), work.ended) == (0, "done")


async def test_a_task_that_nobody_else_refers_to_is_not_lost() -> None:
    """The event loop holds its tasks weakly, and this one waits for what only it refers to."""
    tasks = TaskSet(limit=10)

    async def wait_for_own_future() -> None:
        await asyncio.get_running_loop().create_future()

    reference = weakref.ref(tasks.start(wait_for_own_future()) or tasks)
    await settle()
    gc.collect()
    assert reference() is not None
    await tasks.aclose(timeout_s=5.0)


async def test_past_the_limit_work_is_dropped_unrun_without_a_warning() -> None:
    tasks, running, dropped = TaskSet(limit=1), Work(), Work()
    tasks.start(running.run())
    assert tasks.start(dropped.run()) is None
    gc.collect()
    running.go.set()
    await settle()
    assert (running.ended, dropped.ended) == ("done", "")
    assert tasks.start(dropped.run()) is not None
    await tasks.aclose(timeout_s=5.0)


async def test_what_a_task_raises_is_logged_once_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    tasks, other = TaskSet(limit=10), Work()

    async def fail() -> None:
        raise LookupError("its own")

    tasks.start(other.run())
    tasks.start(fail())
    await settle()
    gc.collect()
    assert len(tasks) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "its own" in caplog.text
    other.go.set()
    await settle()
    assert other.ended == "done"


async def test_the_cancellation_of_one_is_no_failure_and_none_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    tasks, first, second = TaskSet(limit=10), Work(), Work()
    task = tasks.start(first.run())
    tasks.start(second.run())
    assert task is not None
    await settle()
    task.cancel()
    await settle()
    assert (first.ended, second.ended, len(tasks)) == ("cancelled", "", 1)
    assert not caplog.records
    await tasks.aclose(timeout_s=5.0)


async def test_closing_cancels_all_and_returns_when_they_have_ended() -> None:
    tasks, slow = TaskSet(limit=10), asyncio.Event()

    async def unwind() -> None:
        asyncio.get_running_loop().call_later(0.02, slow.set)
        await slow.wait()

    works = [Work(), Work(unwind)]
    for work in works:
        tasks.start(work.run())
    await settle()
    await tasks.aclose(timeout_s=5.0)
    assert [work.ended for work in works] == ["cancelled", "cancelled"]
    assert len(tasks) == 0


async def test_closing_waits_for_what_a_task_starts_in_ending() -> None:
    """A load that is cancelled gives its lease back, and others wait for that."""
    tasks, given_back = TaskSet(limit=10), Work()

    async def unwind() -> None:
        tasks.start(given_back.run())

    tasks.start(Work(unwind).run())
    await settle()
    asyncio.get_running_loop().call_later(0.02, given_back.go.set)
    await tasks.aclose(timeout_s=5.0)
    assert given_back.ended == "done"
    assert len(tasks) == 0


async def test_closing_lets_what_others_wait_for_end_though_it_has_not_begun() -> None:
    tasks, given_back, load = TaskSet(limit=10), Work(), Work()
    tasks.start(given_back.run(), to_end=True)
    tasks.start(load.run())
    asyncio.get_running_loop().call_later(0.02, given_back.go.set)
    await tasks.aclose(timeout_s=5.0)
    assert (given_back.ended, load.ended) == ("done", "")


async def test_closing_ends_that_too_where_it_takes_too_long() -> None:
    tasks, given_back = TaskSet(limit=10), Work()
    tasks.start(given_back.run(), to_end=True)
    await settle()
    with pytest.raises(TimeoutError, match="1 background tasks"):
        await tasks.aclose(timeout_s=0.02)
    await settle()
    assert (given_back.ended, len(tasks)) == ("cancelled", 0)


async def test_once_closed_nothing_is_started_that_nobody_would_end() -> None:
    tasks, late = TaskSet(limit=10), Work()
    await tasks.aclose(timeout_s=5.0)
    assert tasks.start(late.run()) is None
    assert tasks.start(late.run(), to_end=True) is None
    gc.collect()
    assert len(tasks) == 0


async def test_closing_does_not_wait_longer_than_it_may_and_says_what_still_runs() -> None:
    tasks, stubborn = TaskSet(limit=10), asyncio.Event()

    async def unwind() -> None:
        await stubborn.wait()

    work = Work(unwind)
    tasks.start(work.run())
    await settle()
    with pytest.raises(TimeoutError, match="1 background tasks"):
        await tasks.aclose(timeout_s=0.02)
    stubborn.set()
    await settle()
    assert len(tasks) == 0


async def test_closing_what_is_empty_is_no_error_and_may_be_repeated() -> None:
    tasks = TaskSet(limit=10)
    await tasks.aclose(timeout_s=0.0)
    tasks.start(Work().run())
    await tasks.aclose(timeout_s=5.0)
    await tasks.aclose(timeout_s=5.0)
    assert len(tasks) == 0


async def test_a_task_closed_before_its_first_step_never_runs_and_leaves_no_warning() -> None:
    tasks, work = TaskSet(limit=10), Work()
    tasks.start(work.run())
    await tasks.aclose(timeout_s=5.0)
    gc.collect()
    assert work.ended == ""
    assert len(tasks) == 0
