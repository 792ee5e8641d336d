"""Any sequence of coming, leaving, cancelling and waiting, against a model that is too simple to be wrong."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.concurrency.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError

SLOTS, QUEUED, WAIT_S = 2, 4, 10.0
picks = st.integers(0, 1000)


class ClockedLoop(asyncio.SelectorEventLoop):
    """Its time stands still until it is moved."""

    now = 0.0

    def time(self) -> float:
        return self.now


class Caller:
    def __init__(self, machine: BulkheadMachine, key: str) -> None:
        self.key = key
        self.gives_up_at = machine.loop.now + WAIT_S
        self.leave = asyncio.Event()
        self.task = machine.loop.create_task(self._run(machine.bulkhead))

    async def _run(self, bulkhead: Bulkhead) -> str:
        try:
            async with bulkhead.slot(self.key):
                self.holds = True
                await self.leave.wait()
        except BulkheadFullError:
            return "full"
        except BulkheadTimeoutError:
            return "timeout"
        except asyncio.CancelledError:
            return "cancelled"
        return "served"

    holds = False


class BulkheadMachine(RuleBasedStateMachine):
    """The model: who holds a slot, and a list of waiting callers a key, the keys in the order of their turns."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = ClockedLoop()
        self.bulkhead = Bulkhead(concurrent=SLOTS, queued=QUEUED, wait_timeout_s=WAIT_S)
        self.holding: list[Caller] = []
        self.lines: dict[str, list[Caller]] = {}

    def teardown(self) -> None:
        everybody = self.holding + self.waiting
        for caller in everybody:
            caller.task.cancel()
        self.settle()
        assert all(caller.task.done() for caller in everybody)
        assert (self.bulkhead.in_use, self.bulkhead.waiting) == (0, 0)
        self.loop.close()

    @property
    def waiting(self) -> list[Caller]:
        return [caller for line in self.lines.values() for caller in line]

    def settle(self) -> None:
        async def turn() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    def drop(self, caller: Caller) -> None:
        if caller in self.holding:
            self.holding.remove(caller)
            return
        self.lines[caller.key].remove(caller)
        if not self.lines[caller.key]:
            del self.lines[caller.key]

    def serve(self) -> None:
        while self.lines and len(self.holding) < SLOTS:
            key, line = next(iter(self.lines.items()))
            self.holding.append(line.pop(0))
            del self.lines[key]
            if line:
                self.lines[key] = line

    @rule(key=st.sampled_from("aaabc"))
    def come(self, key: str) -> None:
        caller = Caller(self, key)
        full = len(self.waiting) == QUEUED and len(self.holding) == SLOTS
        self.settle()
        if full:
            longest = max(len(line) for line in self.lines.values())
            if longest <= len(self.lines.get(key, ())) + 1:
                assert caller.task.result() == "full"
                return
            (gone,) = [other for other in self.waiting if other.task.done()]
            assert gone.task.result() == "full"
            assert len(self.lines[gone.key]) == longest
            assert self.lines[gone.key][-1] is gone
            self.drop(gone)
        self.lines.setdefault(key, []).append(caller)
        self.serve()

    @rule(which=picks)
    def leave(self, which: int) -> None:
        if self.holding:
            caller = self.holding[which % len(self.holding)]
            caller.leave.set()
            self.settle()
            assert caller.task.result() == "served"
            self.drop(caller)
            self.serve()

    @rule(which=picks)
    def cancel(self, which: int) -> None:
        everybody = self.holding + self.waiting
        if everybody:
            caller = everybody[which % len(everybody)]
            caller.task.cancel()
            self.settle()
            assert caller.task.result() == "cancelled"
            self.drop(caller)
            self.serve()

    @rule(which=picks, steps=st.integers(0, 3))
    def cancel_the_next_as_its_turn_comes(self, which: int, steps: int) -> None:
        if not self.holding or not self.lines:
            return
        holder, heir = self.holding[which % len(self.holding)], next(iter(self.lines.values()))[0]

        async def race() -> None:
            holder.leave.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            heir.task.cancel()

        self.loop.run_until_complete(race())
        self.settle()
        assert heir.task.result() == "cancelled"
        self.drop(holder)
        if steps:  # it was handed the slot before it was cancelled, and that was its key's turn
            self.serve()
        self.drop(heir)
        self.serve()

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.now += seconds
        self.settle()
        for caller in self.waiting:
            if caller.gives_up_at <= self.loop.now:
                assert caller.task.result() == "timeout"
                self.drop(caller)

    @invariant()
    def the_same_hold_and_the_same_wait(self) -> None:
        assert self.bulkhead.in_use == len(self.holding) <= SLOTS
        assert self.bulkhead.waiting == len(self.waiting) <= QUEUED
        assert all(caller.holds and not caller.task.done() for caller in self.holding)
        assert not any(caller.holds or caller.task.done() for caller in self.waiting)
        assert len(self.holding) == SLOTS or not self.waiting


BulkheadMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestBulkhead = BulkheadMachine.TestCase
