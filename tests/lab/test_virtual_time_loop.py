"""The loop of virtual time: what happens in which order, and when."""

from __future__ import annotations

import asyncio

import pytest

from app.lab.simulation.virtual_time import FEW, NothingLeftToWaitForError, VirtualTimeLoop, run_virtually


def _loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


def test_callbacks_run_in_the_order_of_their_times_and_those_of_one_time_as_they_came() -> None:
    async def main() -> list[tuple[str, float]]:
        loop, seen = _loop(), []

        def note(name: str) -> None:
            seen.append((name, loop.time()))

        for name, when in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0)):
            loop.call_at(when, note, name)
        await asyncio.sleep(3.0)
        return seen

    assert run_virtually(main()) == [("a", 1.0), ("b", 1.0), ("c", 2.0), ("d", 2.0)]


def test_what_is_posted_takes_its_place_among_timers() -> None:
    async def main() -> list[str]:
        loop, seen = _loop(), list[str]()
        loop.call_at(2.0, seen.append, "timer")
        loop.post_at(1.0, seen.append, "before")
        loop.post_at(3.0, seen.append, "after")
        await asyncio.sleep(4.0)
        return seen

    assert run_virtually(main()) == ["before", "timer", "after"]


def test_a_callback_that_was_posted_and_fails_ends_the_run() -> None:
    async def main() -> None:
        _loop().post_at(1.0, lambda: 1 / 0)
        await asyncio.sleep(2.0)

    with pytest.raises(ZeroDivisionError):
        run_virtually(main())


def test_a_cancelled_timer_neither_runs_nor_moves_the_clock() -> None:
    async def main() -> float:
        _loop().call_at(5.0, pytest.fail, "it was cancelled").cancel()
        await asyncio.sleep(0)
        async with asyncio.timeout(3600):
            await asyncio.sleep(1.0)
        return _loop().time()

    assert run_virtually(main()) == 1.0


def test_timeouts_that_never_fire_do_not_pile_up() -> None:
    async def main() -> int:
        for _ in range(10 * FEW):
            async with asyncio.timeout(3600):
                await asyncio.sleep(0.001)
        return len(_loop()._timers)

    assert run_virtually(main()) <= FEW + 2


def test_a_timer_of_this_very_moment_runs_though_others_are_always_ready() -> None:
    async def main() -> None:
        due = asyncio.Event()
        _loop().call_later(0, due.set)
        while not due.is_set():  # noqa: ASYNC110 - that is the hazard
            await asyncio.sleep(0)

    run_virtually(main())


def test_a_wait_that_nothing_can_end_is_an_error_and_not_a_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeftToWaitForError):
        run_virtually(main())


def test_time_passes_from_within_a_callback_only_where_nothing_comes_before() -> None:
    async def main() -> tuple[bool, bool, float]:
        loop = _loop()
        free, outcome = loop.create_future(), []

        def callback() -> None:
            outcome.append(loop.passes_to(3.0))
            outcome.append(loop.passes_to(2.0))
            free.set_result(None)

        loop.call_at(1.0, callback)
        loop.call_at(2.5, outcome.append, loop)
        await free
        return outcome[0], outcome[1], loop.time()

    assert run_virtually(main()) == (False, True, 2.0)
