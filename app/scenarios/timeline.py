"""What happened, second by second: answers as the client saw them, loads as PostgreSQL counted them, breakers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.loadtest.latency import percentile
from app.loadtest.open_loop import Answer

BREAKER_STATES = {0: "closed", 1: "half-open", 2: "open"}


@dataclass(frozen=True, slots=True)
class Second:
    """One stretch of about a second, `at` seconds after the beginning.

    `loads` is how many PostgreSQL counted in it, `None` where it could not be asked. `breakers` is the worst state of
    each breaker over the replicas that answered.
    """

    at: float
    phase: str
    requests: int
    failed: int
    loads: int | None
    sources: Mapping[str, int]
    p50_ms: float | None
    p99_ms: float | None
    breakers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in the timeline, `at` seconds after its beginning, at which something was broken or mended."""

    at: float
    label: str


class Timeline:
    """Every answer, and a line for each second. `show` is told of each second, and each mark, as it comes."""

    def __init__(self, show: Callable[[Second | Mark], None]) -> None:
        self.began = time.monotonic()
        self.phase = "warm-up"
        self.answers: list[Answer] = []
        self.seconds: list[Second] = []
        self.marks: list[Mark] = []
        self._show = show
        self._seen = 0

    def record(self, answer: Answer) -> None:
        self.answers.append(answer)

    def mark(self, label: str) -> float:
        """Note that something happens now; returns when, on the monotonic clock."""
        now = time.monotonic()
        mark = Mark(now - self.began, label)
        self.marks.append(mark)
        self._show(mark)
        return now

    def tick(self, loads: int | None, breakers: Mapping[str, int]) -> None:
        """A second has passed: what was answered in it, and what was seen at its end."""
        answers, self._seen = self.answers[self._seen :], len(self.answers)
        good = sorted(answer.seconds * 1e3 for answer in answers if not answer.error)
        second = Second(
            at=time.monotonic() - self.began,
            phase=self.phase,
            requests=len(answers),
            failed=len(answers) - len(good),
            loads=loads,
            sources=Counter(answer.source for answer in answers if not answer.error),
            p50_ms=percentile(good, 0.5) if good else None,
            p99_ms=percentile(good, 0.99) if good else None,
            breakers=breakers,
        )
        self.seconds.append(second)
        self._show(second)

    def between(self, since: float, until: float) -> list[Answer]:
        """The answers to requests that were due from `since` on and before `until`, by the monotonic clock."""
        return [answer for answer in self.answers if since <= answer.due < until]


def p99_s(answers: Sequence[Answer]) -> float | None:
    """The 99th percentile of the good answers' latency; `None` without any."""
    good = sorted(answer.seconds for answer in answers if not answer.error)
    return percentile(good, 0.99) if good else None


def slowest_s(answers: Sequence[Answer]) -> float | None:
    return max((answer.seconds for answer in answers), default=None)


def failures(answers: Sequence[Answer]) -> Counter[str]:
    """What went wrong, and how often."""
    return Counter(answer.error for answer in answers if answer.error)
