"""Any sequence of calls, ends and clock jumps, against a model that is too simple to be wrong."""

from __future__ import annotations

from contextlib import ExitStack

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.concurrency.breaker import BreakerOpenError, BreakerState
from tests.concurrency.breaker_rig import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    OPEN_S,
    PROBE_TIMEOUT_S,
    AnswerError,
    LinkError,
    Rig,
)

LEGAL_CHANGES = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED)}


class BreakerMachine(RuleBasedStateMachine):
    """The model keeps the calls that may still decide something as a set, and time as the seconds left to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(failures=3)
        self.calls: list[ExitStack] = []
        self.deciding: set[int] = set()
        self.state = CLOSED
        self.failed = 0
        self.wait = 0.0

    def move(self, state: BreakerState, wait: float = 0.0) -> None:
        self.state, self.wait, self.failed = state, wait, 0
        self.deciding = set()

    @rule()
    def call(self) -> None:
        stack = ExitStack()
        if self.state is not CLOSED and self.wait > 0:
            with pytest.raises(BreakerOpenError) as caught:
                stack.enter_context(self.rig.breaker.guard())
            assert caught.value.retry_after_s == self.wait
            return
        stack.enter_context(self.rig.breaker.guard())
        if self.state is not CLOSED:
            self.move(HALF_OPEN, PROBE_TIMEOUT_S)
        self.calls.append(stack)
        self.deciding.add(id(stack))

    @rule(which=st.integers(0, 1000), outcome=st.sampled_from(["success", "answer", "failure", "failure", "cancel"]))
    def end(self, which: int, outcome: str) -> None:
        if not self.calls:
            return
        stack = self.calls.pop(which % len(self.calls))
        errors = {"answer": AnswerError(), "failure": LinkError(), "cancel": KeyboardInterrupt()}
        error = errors.get(outcome)
        stack.__exit__(type(error) if error else None, error, None)
        decides = id(stack) in self.deciding
        self.deciding.discard(id(stack))
        if not decides:
            return
        if outcome == "failure":
            self.failed += 1
            if self.state is HALF_OPEN or self.failed == 3:
                self.move(OPEN, OPEN_S)
        elif outcome != "cancel":
            self.failed = 0
            if self.state is HALF_OPEN:
                self.move(CLOSED)
        elif self.state is HALF_OPEN:
            self.wait = 0.0

    @rule(seconds=st.sampled_from([0.5, 1.0, PROBE_TIMEOUT_S, OPEN_S, 1e6]))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)
        self.wait = max(0.0, self.wait - seconds)

    @rule(seconds=st.sampled_from([0.5, 100.0, 1e6]))
    def clock_is_set_back_after_a_look(self, seconds: float) -> None:
        if self.state is CLOSED or self.wait == 0:
            return
        self.call()
        self.rig.clock.advance(-seconds)
        self.call()

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.rig.breaker.state is self.state
        assert self.rig.breaker.retry_after_s == (0 if self.state is CLOSED else self.wait)

    @invariant()
    def changes_form_a_chain(self) -> None:
        changes = self.rig.changes
        assert set(changes) <= LEGAL_CHANGES
        states = [CLOSED, *(new for _, new in changes)]
        assert [old for old, _ in changes] == states[:-1]
        assert states[-1] is self.state


TestBreakerModel = BreakerMachine.TestCase
TestBreakerModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
