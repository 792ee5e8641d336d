"""Use and misuse of the breaker: its listener, nesting, guards, and limits that make no sense."""

from __future__ import annotations

import logging

import pytest

from app.concurrency.breaker import BreakerOpenError, BreakerState, CircuitBreaker
from tests.concurrency.breaker_rig import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    OPEN_S,
    LinkError,
    Rig,
)
from tests.concurrency.fake_clock import FakeClock


@pytest.fixture
def rig() -> Rig:
    return Rig()


# on_change


def test_a_change_is_announced_once_with_the_new_state_in_place(rig: Rig) -> None:
    seen: list[BreakerState] = []
    breaker = CircuitBreaker(
        failures=1, open_s=OPEN_S, clock=rig.clock, on_change=lambda old, new: seen.append(breaker.state)
    )
    with pytest.raises(LinkError), breaker.guard():
        raise LinkError
    rig.clock.advance(OPEN_S)
    with breaker.guard():
        pass
    with breaker.guard():
        pass
    assert seen == [OPEN, HALF_OPEN, CLOSED]


def test_a_listener_that_raises_is_logged_and_changes_neither_state_nor_outcome(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def listener(old: BreakerState, new: BreakerState) -> None:
        raise ValueError("a bug of the listener")

    clock = FakeClock()
    breaker = CircuitBreaker(failures=1, open_s=OPEN_S, clock=clock, on_change=listener)
    with caplog.at_level(logging.ERROR):
        with pytest.raises(LinkError), breaker.guard():
            raise LinkError
        assert breaker.state is OPEN
        with pytest.raises(BreakerOpenError), breaker.guard():
            pytest.fail("the call was let through")
        clock.advance(OPEN_S)
        with breaker.guard():
            assert breaker.state is HALF_OPEN
        assert breaker.state is CLOSED
    assert [record.exc_info is not None for record in caplog.records] == [True, True, True]


def test_an_interrupt_inside_the_listener_leaves_the_probes_slot_free(rig: Rig) -> None:
    def listener(old: BreakerState, new: BreakerState) -> None:
        if new is HALF_OPEN:
            raise KeyboardInterrupt

    breaker = CircuitBreaker(failures=1, open_s=OPEN_S, clock=rig.clock, on_change=listener)
    with pytest.raises(LinkError), breaker.guard():
        raise LinkError
    rig.clock.advance(OPEN_S)
    with pytest.raises(KeyboardInterrupt), breaker.guard():
        pytest.fail("the call went on")
    with breaker.guard():
        pass
    assert breaker.state is CLOSED


def test_changes_made_inside_the_listener_are_announced_after_it_and_in_order(rig: Rig) -> None:
    told: list[str] = []

    def listener(old: BreakerState, new: BreakerState) -> None:
        told.append(f"{old.name}>{new.name} begins")
        if new is OPEN:
            rig.clock.advance(OPEN_S)
            with breaker.guard():
                pass
        told.append(f"{old.name}>{new.name} ends")

    breaker = CircuitBreaker(failures=1, open_s=OPEN_S, clock=rig.clock, on_change=listener)
    with pytest.raises(LinkError), breaker.guard():
        raise LinkError
    assert breaker.state is CLOSED
    changes = ["CLOSED>OPEN", "OPEN>HALF_OPEN", "HALF_OPEN>CLOSED"]
    assert told == [f"{change} {step}" for change in changes for step in ("begins", "ends")]


def test_a_call_from_inside_the_listener_at_half_open_is_refused_like_any_other(rig: Rig) -> None:
    refusals: list[float] = []

    def listener(old: BreakerState, new: BreakerState) -> None:
        if new is HALF_OPEN:
            with pytest.raises(BreakerOpenError) as caught, breaker.guard():
                pytest.fail("a second probe was let through")
            refusals.append(caught.value.retry_after_s)

    breaker = CircuitBreaker(failures=1, open_s=OPEN_S, clock=rig.clock, on_change=listener)
    with pytest.raises(LinkError), breaker.guard():
        raise LinkError
    rig.clock.advance(OPEN_S)
    with breaker.guard():
        pass
    assert refusals == [OPEN_S]
    assert breaker.state is CLOSED


# Nesting and misuse


def test_nested_calls_each_count_their_own_outcome(rig: Rig) -> None:
    with pytest.raises(LinkError), rig.breaker.guard(), rig.breaker.guard(), rig.breaker.guard():
        raise LinkError
    assert rig.breaker.state is OPEN


def test_a_refusal_of_a_call_nested_in_one_of_the_period_before_changes_nothing(rig: Rig) -> None:
    with pytest.raises(BreakerOpenError), rig.breaker.guard():  # noqa: PT012 - the refusal passes through the block
        rig.open()
        with rig.breaker.guard():
            pytest.fail("the call was let through")
    assert rig.breaker.state is OPEN
    assert rig.changes == [(CLOSED, OPEN)]


def test_a_guard_admits_one_call_only(rig: Rig) -> None:
    guard = rig.breaker.guard()
    with guard, pytest.raises(RuntimeError, match="guard"), guard:
        pytest.fail("a guard was entered twice")
    with pytest.raises(RuntimeError, match="guard"), guard:
        pytest.fail("a guard was entered after its end")
    assert rig.breaker.state is CLOSED


def test_a_guard_that_was_refused_stays_used(rig: Rig) -> None:
    rig.open()
    guard = rig.breaker.guard()
    with pytest.raises(BreakerOpenError), guard:
        pytest.fail("the call was let through")
    rig.clock.advance(OPEN_S)
    with pytest.raises(RuntimeError, match="guard"), guard:
        pytest.fail("a guard was entered twice")


def test_a_guard_never_entered_takes_no_slot(rig: Rig) -> None:
    rig.open_and_wait()
    rig.breaker.guard()
    rig.succeed()
    assert rig.breaker.state is CLOSED


def test_a_bug_in_counts_is_raised_and_frees_the_probes_slot(rig: Rig) -> None:
    verdicts = [True]
    breaker = CircuitBreaker(failures=1, open_s=OPEN_S, clock=rig.clock, counts=lambda _: verdicts.pop())
    with pytest.raises(LinkError), breaker.guard():
        raise LinkError
    rig.clock.advance(OPEN_S)
    with pytest.raises(IndexError) as caught, breaker.guard():
        raise LinkError
    assert isinstance(caught.value.__context__, LinkError)
    with breaker.guard():
        pass
    assert breaker.state is CLOSED


@pytest.mark.parametrize(
    ("failures", "open_s", "probe_timeout_s"),
    [
        (0, 1.0, 1.0),
        (-1, 1.0, 1.0),
        (1, 0.0, 1.0),
        (1, -1.0, 1.0),
        (1, float("nan"), 1.0),
        (1, float("inf"), 1.0),
        (1, 1.0, 0.0),
        (1, 1.0, float("inf")),
    ],
)
def test_limits_that_would_wedge_the_breaker_are_refused(failures: int, open_s: float, probe_timeout_s: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        CircuitBreaker(failures=failures, open_s=open_s, probe_timeout_s=probe_timeout_s)


def test_the_states_values_are_the_metrics() -> None:
    assert {state.name: state.value for state in BreakerState} == {"CLOSED": 0, "HALF_OPEN": 1, "OPEN": 2}
