from __future__ import annotations

import asyncio

import pytest

from app.cache.origin import Loaded, Origin
from app.concurrency.budget import BudgetExceededError, allotted, budget, own_budget, time_left
from app.lab.simulation.recorded_events import RecordedEvents
from tests.concurrency.fake_clock import FakeClock


def test_without_a_budget_a_call_may_take_its_default() -> None:
    assert time_left() is None
    assert allotted(5.0, margin_s=1.0) == 5.0
    assert allotted(None) is None
    with budget(None):
        assert time_left() is None


def test_within_a_budget_a_call_gets_what_is_left_less_the_margin_and_no_more_than_its_default() -> None:
    clock = FakeClock()
    with budget(3.0, clock=clock):
        assert allotted(5.0, margin_s=0.5, clock=clock) == 2.5
        assert allotted(5.0, margin_s=0.5, margin_share=0.1, clock=clock) == pytest.approx(2.2)
        assert allotted(None, clock=clock) == 3.0
        assert allotted(1.0, clock=clock) == 1.0
        clock.advance(2.5)
        assert allotted(1.0, clock=clock) == 0.5


def test_a_spent_budget_refuses_at_once_and_so_does_one_that_the_margin_eats_up() -> None:
    clock = FakeClock()
    with budget(1.0, clock=clock):
        clock.advance(0.95)
        with pytest.raises(BudgetExceededError):
            allotted(5.0, margin_s=0.05, clock=clock)
        clock.advance(9)
        assert time_left(clock=clock) == 0.0
        with pytest.raises(BudgetExceededError):
            allotted(5.0, clock=clock)
    assert allotted(5.0, clock=clock) == 5.0


def test_an_inner_budget_can_shorten_the_outer_one_and_not_lengthen_it() -> None:
    clock = FakeClock()
    with budget(3.0, clock=clock):
        with budget(10.0, clock=clock):
            assert time_left(clock=clock) == 3.0
        with budget(1.0, clock=clock):
            assert time_left(clock=clock) == 1.0
        assert time_left(clock=clock) == 3.0


async def test_a_task_has_the_budget_of_where_it_was_started_and_no_other_task_has_it() -> None:
    async def left() -> float | None:
        return time_left()

    with budget(60):
        inside = asyncio.create_task(left())
    outside = asyncio.create_task(left())
    assert await inside is not None
    assert await outside is None


def test_work_that_others_wait_for_too_has_a_budget_of_its_own() -> None:
    with budget(1.0):
        with own_budget(60):
            left = time_left()
            assert left is not None
            assert left > 1
        with own_budget(None):
            assert time_left() is None
        assert time_left() is not None


async def test_a_load_has_its_own_deadline_for_a_budget_and_not_that_of_who_began_it() -> None:
    seen: list[float | None] = []

    async def load(key: str) -> Loaded:
        seen.append(time_left())
        return Loaded(b"x", 1)

    origin = Origin(load, ttl_s=1, negative_ttl_s=1, jitter=0, deadline_s=30, events=RecordedEvents())
    with budget(0.001):
        await origin.load("k")
    [left] = seen
    assert left is not None
    assert 0.001 < left <= 30
