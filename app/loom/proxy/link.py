"""The backend behind a circuit breaker.

What counts as a failure is a dial that fails, and a connection that the backend ends first with calls under way: never
a client that cancels, a deadline, or a status. A connection that ends in any other way is a success, and so is the
probe's dial.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.loom.proxy.upstream import Upstream

P = TypeVar("P", bound=asyncio.Protocol)


class _LostError(Exception):
    """The backend ended a connection with calls under way."""


class Link:
    """What a connection's end says to the breaker."""

    def __init__(self, guard: contextlib.ExitStack) -> None:
        self._guard = guard

    def ended(self, *, lost: bool) -> None:
        """The connection is over; `lost` where the backend ended it with calls under way."""
        with contextlib.suppress(_LostError), self._guard.pop_all():
            if lost:
                raise _LostError


class GuardedUpstream:
    """Dials `upstream` where `breaker` lets it."""

    def __init__(self, upstream: Upstream, breaker: CircuitBreaker) -> None:
        self.upstream = upstream
        self.breaker = breaker

    async def dial(self, protocol: Callable[[], P]) -> tuple[P, Link]:
        """Raises `BreakerOpenError` at once, `DialError` within the upstream's timeout."""
        with contextlib.ExitStack() as guard:
            guard.enter_context(self.breaker.guard())
            is_probe = self.breaker.state is not BreakerState.CLOSED
            connected = await self.upstream.dial(protocol)
            if is_probe:
                guard.close()  # the dial is all that the probe has to show
                guard.enter_context(self.breaker.guard())
            return connected, Link(guard.pop_all())
