"""The breaker's three states. Interleavings are forced: each call ends when its test says so, on a fake clock."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Generator

import pytest

from app.concurrency.breaker import BreakerOpenError, CircuitBreaker
from tests.concurrency.breaker_rig import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    OPEN_S,
    PROBE_TIMEOUT_S,
    AnswerError,
    Call,
    LinkError,
    Rig,
    begin,
)
from tests.concurrency.fake_clock import FakeClock


@pytest.fixture
def rig() -> Rig:
    return Rig()


# Closed


async def test_call_returns_the_functions_value(rig: Rig) -> None:
    async def answer() -> str:
        return "value"

    assert await rig.breaker.call(answer) == "value"


async def test_call_raises_the_functions_own_error_unchanged(rig: Rig) -> None:
    error = LinkError("down")

    async def failing() -> None:
        raise error

    with pytest.raises(LinkError) as caught:
        await rig.breaker.call(failing)
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_opens_at_the_nth_consecutive_failure_and_not_before(rig: Rig) -> None:
    rig.fail(times=2)
    assert rig.breaker.state is CLOSED
    rig.fail()
    assert rig.breaker.state is OPEN
    assert rig.changes == [(CLOSED, OPEN)]


def test_a_success_resets_the_count(rig: Rig) -> None:
    rig.fail(times=2)
    rig.succeed()
    rig.fail(times=2)
    assert rig.breaker.state is CLOSED


def test_one_failure_opens_where_one_is_the_limit() -> None:
    rig = Rig(failures=1)
    rig.fail()
    assert rig.breaker.state is OPEN


async def test_failures_of_concurrent_calls_count_as_they_end(rig: Rig) -> None:
    calls = [await begin(rig.breaker) for _ in range(3)]
    await calls[2].fail()
    await calls[0].fail()
    assert rig.breaker.state is CLOSED
    await calls[1].fail()
    assert rig.breaker.state is OPEN


async def test_a_function_that_raises_before_it_returns_an_awaitable_counts(rig: Rig) -> None:
    def broken() -> Awaitable[None]:
        raise LinkError

    for _ in range(3):
        with pytest.raises(LinkError):
            await rig.breaker.call(broken)
    assert rig.breaker.state is OPEN


def test_an_error_that_does_not_count_is_a_success_for_the_link_answered(rig: Rig) -> None:
    rig.fail(times=2)
    rig.fail(AnswerError())
    rig.fail(times=2)
    assert rig.breaker.state is CLOSED


def test_by_default_every_exception_counts() -> None:
    breaker = CircuitBreaker(failures=2, open_s=OPEN_S, clock=FakeClock())
    for error in (AnswerError(), TimeoutError()):
        with pytest.raises(type(error)), breaker.guard():
            raise error
    assert breaker.state is OPEN


async def test_cancelling_ordinary_calls_is_neither_failure_nor_success(rig: Rig) -> None:
    for _ in range(10):
        await (await begin(rig.breaker)).cancel()
    assert rig.breaker.state is CLOSED
    rig.fail(times=2)
    await (await begin(rig.breaker)).cancel()
    rig.fail()
    assert rig.breaker.state is OPEN


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), SystemExit(), asyncio.CancelledError()])
def test_errors_that_say_nothing_about_the_link_are_neutral_even_if_counts_would_count_them(
    error: BaseException,
) -> None:
    breaker = CircuitBreaker(failures=1, open_s=OPEN_S, clock=FakeClock(), counts=lambda _: True)
    with pytest.raises(type(error)), breaker.guard():
        raise error
    assert breaker.state is CLOSED


async def test_a_timeout_inside_the_call_counts_and_one_outside_does_not(rig: Rig) -> None:
    async def hang() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            await rig.breaker.call(hang)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await rig.breaker.call(asyncio.Event().wait)
    assert rig.breaker.state is CLOSED
    with pytest.raises(TimeoutError):
        await rig.breaker.call(hang)
    assert rig.breaker.state is OPEN


def test_leaving_a_guarded_block_by_return_or_break_is_a_success(rig: Rig) -> None:
    def leave() -> None:
        with rig.breaker.guard():
            return

    rig.fail(times=2)
    leave()
    rig.fail(times=2)
    for _ in range(1):
        with rig.breaker.guard():
            break
    rig.fail(times=2)
    assert rig.breaker.state is CLOSED


# Open


async def test_open_refuses_at_once_and_never_calls_the_function(rig: Rig) -> None:
    rig.open()
    called = False

    async def function() -> None:
        nonlocal called
        called = True

    with pytest.raises(BreakerOpenError):
        await rig.breaker.call(function)
    assert not called


def test_a_refusal_says_when_to_try_again(rig: Rig) -> None:
    assert rig.breaker.retry_after_s == 0
    rig.open()
    assert rig.refused() == rig.breaker.retry_after_s == OPEN_S
    rig.clock.advance(10)
    assert rig.refused() == rig.breaker.retry_after_s == OPEN_S - 10
    rig.clock.advance(100)
    assert rig.breaker.retry_after_s == 0


def test_stays_open_until_the_period_is_over(rig: Rig) -> None:
    rig.open()
    rig.clock.advance(OPEN_S - 0.001)
    rig.refused()
    rig.clock.advance(0.001)
    rig.succeed()


def test_refusals_do_not_extend_the_open_period(rig: Rig) -> None:
    rig.open()
    for _ in range(3):
        rig.clock.advance(OPEN_S / 3)
        if rig.breaker.retry_after_s > 0:
            rig.refused()
    rig.succeed()
    assert rig.breaker.state is CLOSED


def test_reading_the_state_never_changes_it(rig: Rig) -> None:
    rig.open_and_wait()
    for _ in range(3):
        assert rig.breaker.state is OPEN
        assert rig.breaker.retry_after_s == 0
    assert rig.changes == [(CLOSED, OPEN)]


# Half-open


async def test_the_first_call_after_the_period_is_the_probe_and_all_others_are_refused_while_it_runs(rig: Rig) -> None:
    rig.open_and_wait()
    probe = await begin(rig.breaker)
    assert rig.breaker.state is HALF_OPEN
    for _ in range(3):
        assert rig.refused() == rig.breaker.retry_after_s == PROBE_TIMEOUT_S
    await probe.succeed()
    assert rig.breaker.state is CLOSED
    assert rig.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


async def test_of_many_callers_at_the_moment_of_half_open_exactly_one_is_let_through(rig: Rig) -> None:
    rig.open_and_wait()
    crowd = [Call(rig.breaker) for _ in range(200)]
    await asyncio.sleep(0)
    admitted = [call for call in crowd if call.began]
    refused = [call for call in crowd if not call.began]
    assert len(admitted) == 1
    results = await asyncio.gather(*(call.task for call in refused), return_exceptions=True)
    assert {type(result) for result in results} == {BreakerOpenError}
    await admitted[0].succeed()
    assert rig.breaker.state is CLOSED


async def test_after_the_probe_succeeds_all_are_let_through_and_the_count_starts_at_none(rig: Rig) -> None:
    rig.open_and_wait()
    await (await begin(rig.breaker)).succeed()
    rig.fail(times=2)
    assert rig.breaker.state is CLOSED
    calls = [await begin(rig.breaker) for _ in range(5)]
    for call in calls:
        await call.succeed()


async def test_a_failed_probe_opens_again_for_a_full_period_from_its_end(rig: Rig) -> None:
    rig.open_and_wait()
    probe = await begin(rig.breaker)
    rig.clock.advance(5)
    await probe.fail()
    assert rig.breaker.state is OPEN
    assert rig.refused() == OPEN_S
    rig.clock.advance(OPEN_S - 0.001)
    rig.refused()
    rig.clock.advance(0.001)
    rig.succeed()
    assert rig.changes == [
        (CLOSED, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, OPEN),
        (OPEN, HALF_OPEN),
        (HALF_OPEN, CLOSED),
    ]


def test_a_probe_answered_with_an_error_that_does_not_count_closes(rig: Rig) -> None:
    rig.open_and_wait()
    rig.fail(AnswerError())
    assert rig.breaker.state is CLOSED


async def test_a_cancelled_probe_frees_the_slot_for_one_next_caller_at_once(rig: Rig) -> None:
    rig.open_and_wait()
    probe = await begin(rig.breaker)
    await probe.cancel()
    assert rig.breaker.state is HALF_OPEN
    assert rig.breaker.retry_after_s == 0

    crowd = [Call(rig.breaker) for _ in range(50)]
    await asyncio.sleep(0)
    [second] = [call for call in crowd if call.began]
    refused = [call.task for call in crowd if call is not second]
    results = await asyncio.gather(*refused, return_exceptions=True)
    assert all(isinstance(result, BreakerOpenError) for result in results)
    await second.succeed()
    assert rig.breaker.state is CLOSED
    assert rig.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


async def test_a_probe_cancelled_before_its_first_step_takes_no_slot(rig: Rig) -> None:
    rig.open_and_wait()
    call = Call(rig.breaker)
    await call.cancel()
    assert not call.began
    rig.succeed()
    assert rig.breaker.state is CLOSED


async def test_the_probe_that_follows_a_cancelled_one_can_fail(rig: Rig) -> None:
    rig.open_and_wait()
    await (await begin(rig.breaker)).cancel()
    await (await begin(rig.breaker)).fail()
    assert rig.breaker.state is OPEN
    assert rig.refused() == OPEN_S


def test_a_probe_dropped_in_mid_flight_by_the_garbage_collector_frees_the_slot(rig: Rig) -> None:
    rig.open_and_wait()

    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def probe() -> None:
        with rig.breaker.guard():
            await Pause()

    coroutine = probe()
    coroutine.send(None)
    rig.refused()
    del coroutine
    gc.collect()
    rig.succeed()
    assert rig.breaker.state is CLOSED
