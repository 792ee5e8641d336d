"""A breaker on a fake clock, and calls through it that end when the test says so."""

from __future__ import annotations

import asyncio

import pytest

from app.concurrency.breaker import BreakerOpenError, BreakerState, CircuitBreaker
from tests.concurrency.fake_clock import FakeClock

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
OPEN_S = 30.0
PROBE_TIMEOUT_S = 7.0


class LinkError(Exception):
    """The link failed."""


class AnswerError(Exception):
    """The server answered, and the answer is an error."""


class Rig:
    """A breaker on a fake clock that opens after three failures, and all that it announced."""

    def __init__(self, failures: int = 3) -> None:
        self.clock = FakeClock()
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        self.breaker = CircuitBreaker(
            failures=failures,
            open_s=OPEN_S,
            probe_timeout_s=PROBE_TIMEOUT_S,
            clock=self.clock,
            counts=lambda error: not isinstance(error, AnswerError),
            on_change=lambda old, new: self.changes.append((old, new)),
        )

    def succeed(self) -> None:
        with self.breaker.guard():
            pass

    def fail(self, error: BaseException | None = None, times: int = 1) -> None:
        error = error or LinkError()
        for _ in range(times):
            with pytest.raises(type(error)), self.breaker.guard():
                raise error

    def refused(self) -> float:
        """Asserts that a call is refused; its `retry_after_s`."""
        with pytest.raises(BreakerOpenError) as caught, self.breaker.guard():
            pytest.fail("the call was let through")
        return caught.value.retry_after_s

    def open(self) -> None:
        self.fail(times=3)
        assert self.breaker.state is OPEN

    def open_and_wait(self) -> None:
        """From closed to the moment at which the next call is the probe."""
        self.open()
        self.clock.advance(OPEN_S)


class Call:
    """A call through the breaker that ends when the test says so."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.began = False
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(breaker.call(self._run))

    async def _run(self) -> str:
        self.began = True
        return await self._end

    async def succeed(self) -> None:
        self._end.set_result("value")
        assert await self.task == "value"

    async def fail(self, error: Exception | None = None) -> None:
        error = error or LinkError()
        self._end.set_exception(error)
        with pytest.raises(type(error)):
            await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def begin(breaker: CircuitBreaker) -> Call:
    """A call that was let through and is now under way."""
    call = Call(breaker)
    await asyncio.sleep(0)
    assert call.began
    return call
