"""Time and the breaker: probes that hang, calls that outlive the period they began in, clocks that go wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from app.concurrency.breaker import CircuitBreaker
from tests.concurrency.breaker_rig import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    OPEN_S,
    PROBE_TIMEOUT_S,
    Call,
    LinkError,
    Rig,
    begin,
)
from tests.concurrency.fake_clock import FakeClock


@pytest.fixture
def rig() -> Rig:
    return Rig()


# A probe that hangs


async def test_a_probe_that_hangs_is_replaced_by_exactly_one_other_when_its_time_is_over(rig: Rig) -> None:
    rig.open_and_wait()
    hung = await begin(rig.breaker)
    rig.clock.advance(PROBE_TIMEOUT_S - 0.001)
    rig.refused()
    rig.clock.advance(0.001)
    second = await begin(rig.breaker)
    assert rig.refused() == PROBE_TIMEOUT_S
    await second.succeed()
    assert rig.breaker.state is CLOSED
    assert rig.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]
    await hung.cancel()


@pytest.mark.parametrize("end", [Call.succeed, Call.fail, Call.cancel])
async def test_the_late_end_of_a_replaced_probe_is_ignored(rig: Rig, end: Callable[[Call], Awaitable[None]]) -> None:
    rig.open_and_wait()
    hung = await begin(rig.breaker)
    rig.clock.advance(PROBE_TIMEOUT_S)
    second = await begin(rig.breaker)
    await end(hung)
    assert rig.breaker.state is HALF_OPEN
    rig.refused()
    await second.fail()
    assert rig.breaker.state is OPEN


async def test_the_late_end_of_a_replaced_probe_counts_in_no_later_period(rig: Rig) -> None:
    rig.open_and_wait()
    hung = await begin(rig.breaker)
    rig.clock.advance(PROBE_TIMEOUT_S)
    await (await begin(rig.breaker)).succeed()
    rig.fail(times=2)
    await hung.fail()
    assert rig.breaker.state is CLOSED


async def test_a_late_probe_that_nobody_replaced_still_tells_the_state_of_the_link(rig: Rig) -> None:
    rig.open_and_wait()
    probe = await begin(rig.breaker)
    rig.clock.advance(PROBE_TIMEOUT_S * 10)
    await probe.succeed()
    assert rig.breaker.state is CLOSED


async def test_the_probes_time_is_the_open_period_where_none_is_given() -> None:
    clock = FakeClock()
    breaker = CircuitBreaker(failures=1, open_s=OPEN_S, clock=clock)
    with pytest.raises(LinkError), breaker.guard():
        raise LinkError
    clock.advance(OPEN_S)
    hung = await begin(breaker)
    assert breaker.retry_after_s == OPEN_S
    await hung.cancel()


# Calls that outlive the period they began in


async def test_a_call_begun_before_the_opening_that_succeeds_after_it_does_not_close(rig: Rig) -> None:
    straggler = await begin(rig.breaker)
    rig.open()
    rig.clock.advance(10)
    await straggler.succeed()
    assert rig.breaker.state is OPEN
    assert rig.refused() == OPEN_S - 10


async def test_a_call_begun_before_the_opening_that_fails_after_it_does_not_extend_the_period(rig: Rig) -> None:
    straggler = await begin(rig.breaker)
    rig.open()
    rig.clock.advance(10)
    await straggler.fail()
    assert rig.refused() == OPEN_S - 10
    assert rig.changes == [(CLOSED, OPEN)]


@pytest.mark.parametrize("end", [Call.succeed, Call.fail, Call.cancel])
async def test_a_straggler_decides_nothing_while_the_probe_runs(
    rig: Rig, end: Callable[[Call], Awaitable[None]]
) -> None:
    straggler = await begin(rig.breaker)
    rig.open_and_wait()
    probe = await begin(rig.breaker)
    await end(straggler)
    assert rig.breaker.state is HALF_OPEN
    rig.refused()
    await probe.succeed()
    assert rig.breaker.state is CLOSED


async def test_a_straggler_of_one_closed_period_counts_in_no_later_one(rig: Rig) -> None:
    failing, succeeding = await begin(rig.breaker), await begin(rig.breaker)
    rig.open_and_wait()
    rig.succeed()
    rig.fail(times=2)
    await failing.fail()
    assert rig.breaker.state is CLOSED, "a failure of the period before was counted"
    await succeeding.succeed()
    rig.fail()
    assert rig.breaker.state is OPEN, "a success of the period before reset the count"


# The clock


def test_a_clock_that_stands_still_only_makes_the_period_longer(rig: Rig) -> None:
    rig.open()
    for _ in range(1000):
        rig.refused()
    rig.clock.advance(OPEN_S)
    rig.succeed()
    assert rig.breaker.state is CLOSED


async def test_a_clock_that_stands_still_does_not_keep_a_freed_slot_from_the_next_probe(rig: Rig) -> None:
    rig.open_and_wait()
    await (await begin(rig.breaker)).cancel()
    rig.succeed()
    assert rig.breaker.state is CLOSED


def test_a_clock_set_back_costs_no_time_that_has_passed_already(rig: Rig) -> None:
    rig.open()
    rig.clock.advance(10)
    rig.refused()
    rig.clock.advance(-500)
    assert rig.breaker.retry_after_s == OPEN_S - 10
    assert rig.refused() == OPEN_S - 10
    rig.clock.advance(OPEN_S - 10)
    rig.succeed()


def test_a_clock_set_back_unseen_costs_at_most_one_period(rig: Rig) -> None:
    rig.open()
    rig.clock.advance(-1_000_000)
    assert rig.refused() == OPEN_S
    rig.clock.advance(OPEN_S)
    rig.succeed()


def test_a_clock_that_keeps_jumping_back_still_lets_the_period_end(rig: Rig) -> None:
    rig.open()
    for _ in range(int(OPEN_S)):
        rig.refused()
        rig.clock.advance(2)
        if rig.breaker.retry_after_s == 0:
            break
        rig.refused()
        rig.clock.advance(-3)
    rig.succeed()
    assert rig.breaker.state is CLOSED


async def test_a_clock_set_back_during_the_probe_does_not_make_its_time_longer(rig: Rig) -> None:
    rig.open_and_wait()
    hung = await begin(rig.breaker)
    rig.clock.advance(-5000)
    assert rig.refused() == PROBE_TIMEOUT_S
    rig.clock.advance(PROBE_TIMEOUT_S)
    rig.succeed()
    assert rig.breaker.state is CLOSED
    await hung.cancel()


def test_no_jump_of_the_clock_opens_a_closed_breaker(rig: Rig) -> None:
    rig.fail(times=2)
    for jump in (-5000, 1e9, -1e9):
        rig.clock.advance(jump)
        assert rig.breaker.state is CLOSED
        assert rig.breaker.retry_after_s == 0
    rig.succeed()
