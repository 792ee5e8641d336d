"""Whether this process should get traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.concurrency.fair_timeout import FairTimeout

Check = Callable[[], Awaitable[bool]]
"""Whether one dependency answers now. Must not raise for what it is there to find out."""
CHECK_TIMEOUT_S = 1.0
"""A dependency that takes longer does not answer."""


class Status(StrEnum):
    READY = "ready"
    DRAINING = "draining"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Report:
    """The status, and which dependency answered."""

    status: Status
    answered: Mapping[str, bool]


class Health:
    """Ready while not draining and while any dependency answers: with the cache or the database alone, reads go on."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self.draining = False

    async def report(self) -> Report:
        """Asks all dependencies at once."""
        answers = await asyncio.gather(*(_answers(check) for check in self._checks.values()))
        status = Status.READY if any(answers) else Status.UNAVAILABLE
        if self.draining:
            status = Status.DRAINING
        return Report(status, dict(zip(self._checks, answers, strict=True)))


async def _answers(check: Check) -> bool:
    try:
        async with FairTimeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return False
