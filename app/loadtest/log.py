"""What a run leaves behind: every request, and the counters around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from app.loadtest.plan import Plan

SPREAD = 0
"""The phase of requests that belong to no wave."""


class Sample(NamedTuple):
    """One request: `start` and `end` in seconds on the monotonic clock, `status` HTTP's, 0 where no response came.

    `phase` is the wave's number from 1, or `SPREAD`. `source` is the response's `X-Cache`; `error` is empty for a good
    response, else says in a few stable words what was wrong. What is different over gRPC: `reader.Reply`.
    """

    key: int
    phase: int
    start: float
    end: float
    status: int
    source: str
    error: str

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Counted:
    """How far the app's own counters rose during the run, and PostgreSQL's count of load queries, where it was read."""

    db_loads: int
    shared: int
    hits: int
    misses: int
    reads_by_source: Mapping[str, int]
    db_loads_by_postgres: int | None = None


@dataclass(frozen=True, slots=True)
class RunLog:
    """One run of one plan against one app.

    `mode`, `version` and `ttl_s` (the longest life of a cached value, in seconds) are the app's own words; `url` holds
    no password; `started_at` is aware.
    """

    plan: Plan
    url: str
    mode: str
    version: str
    ttl_s: float
    started_at: datetime
    samples: Sequence[Sample] = field(repr=False)
    counted: Counted

    @property
    def good(self) -> list[Sample]:
        """The samples that are no errors."""
        return [sample for sample in self.samples if not sample.error]

    def wave(self, number: int) -> list[Sample]:
        """The samples of one wave, in the order in which they were sent."""
        return sorted((sample for sample in self.samples if sample.phase == number), key=lambda sample: sample.start)

    @property
    def seconds(self) -> float:
        """From the first request's start to the last one's end; 0 where there was none."""
        if not self.samples:
            return 0.0
        return max(sample.end for sample in self.samples) - min(sample.start for sample in self.samples)
