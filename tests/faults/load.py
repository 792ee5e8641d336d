"""A bounded load on a replica that goes on while things break, and the log of what became of every request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from app.loadtest.errors import RequestError
from app.loadtest.http import Connection

TIMEOUT_S = 30.0


class Answer(NamedTuple):
    """One caller's request: the phase in which it began, how long it took; `status` 0 and `error` where none came."""

    caller: int
    phase: str
    seconds: float
    status: int
    source: str
    error: str


class Load:
    """Callers on keep-alive connections, each asking for the next of `ids` and then resting for `pause_s`.

    `async with` runs it. `phase` names what happens from now on.
    """

    def __init__(self, http_url: str, ids: Iterator[int], *, callers: int = 12, pause_s: float = 0.02) -> None:
        parts = urlsplit(http_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._connections = [Connection(parts.hostname, parts.port, TIMEOUT_S) for _ in range(callers)]
        self._ids = ids
        self._pause_s = pause_s
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: list[Answer] = []
        self.phase = "before"

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call(*each)) for each in enumerate(self._connections)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for connection in self._connections:
                connection.close()

    async def answered(self, count: int) -> None:
        """Until so many more requests have been answered."""
        wanted = len(self.answers) + count
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.answers) < wanted:  # noqa: ASYNC110 - a clock would not be simpler
                await asyncio.sleep(0.005)

    async def answered_each(self, count: int) -> None:
        """Until each caller has been answered so many requests that began in this phase."""
        async with asyncio.timeout(TIMEOUT_S):
            while min(self._answers_by_caller()) < count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)

    def of(self, phase: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.phase == phase]

    def outcomes(self, *phases: str) -> Counter[str]:
        """How many requests, of these phases or of all, ended with which status or error."""
        return Counter(
            answer.error or str(answer.status) for answer in self.answers if not phases or answer.phase in phases
        )

    def _answers_by_caller(self) -> list[int]:
        found = Counter(answer.caller for answer in self.of(self.phase))
        return [found[caller] for caller in range(len(self._connections))]

    async def _call(self, caller: int, connection: Connection) -> None:
        while not self._ending.is_set():
            phase, began, template_id = self.phase, time.monotonic(), next(self._ids)
            try:
                response = await connection.get(b"/template-details?id=%d" % template_id)
            except RequestError as error:
                self.answers.append(Answer(caller, phase, time.monotonic() - began, 0, "", error.kind))
            else:
                is_right = response.status != 200 or response.body.startswith(b'{"id":%d,' % template_id)
                error_kind = "" if is_right else "another template's body"
                seconds = response.end - began
                self.answers.append(Answer(caller, phase, seconds, response.status, response.source, error_kind))
            await asyncio.sleep(self._pause_s)
