"""Holding calls back for the moment in which a drain begins."""

from __future__ import annotations

import asyncio
import contextlib

from app.api.grpc.call import Behaviour, Call, Method
from app.concurrency.fair_timeout import FairTimeout

HOLD_S = 0.05
"""How long calls are held: within it, a client that calls again as soon as it is answered has called again."""
IDLE_S = 0.01
"""A server to which nobody has come for so long, and whom nobody waits for, need not hold any."""


class Gate:
    """Every call passes it; while it is shut, those that come wait in front of it. An interceptor, the innermost.

    When gRPC stops a server it cancels all calls that it has not yet handed to their methods, and those that clients
    send before they see the GOAWAY: with callers that call again and again nearly one call each. A call held here has
    been handed over: it is answered after the GOAWAY has gone out, and the caller's next one goes elsewhere.
    """

    def __init__(self) -> None:
        self._opened: asyncio.Event | None = None
        self._hurried = asyncio.Event()
        self._come = 0
        self._inside = 0

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:  # noqa: ARG002 - alike for all methods
        async def held(call: Call) -> bytes | None:
            self._come += 1
            self._inside += 1
            try:
                if self._opened is not None:
                    await self._opened.wait()
                return await behaviour(call)
            finally:
                self._inside -= 1

        return held

    async def shut(self) -> None:
        """Holds calls from now on. Returns once those who call again and again are held, or `hurry` was called."""
        self._opened = asyncio.Event()
        come, inside = self._come, self._inside
        await self._wait(IDLE_S)
        if inside or self._come != come:
            await self._wait(HOLD_S)

    def hurry(self) -> None:
        """Nobody is to be waited for any more."""
        self._hurried.set()

    def open(self) -> None:
        """Those that were held go on, and nobody is held any more."""
        if self._opened is not None:
            self._opened.set()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with FairTimeout(seconds):
                await self._hurried.wait()
