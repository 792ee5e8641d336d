"""Logs of runs that never ran."""

from __future__ import annotations

from datetime import UTC, datetime

from app.loadtest.log import Counted, RunLog, Sample
from app.loadtest.plan import Plan


def sample(
    key: int = 1, start: float = 0.0, end: float = 0.05, source: str = "l2", error: str = "", phase: int = 0
) -> Sample:
    return Sample(key, phase, start, end, 200, source, error)


def run_log(
    samples: list[Sample],
    *,
    loads: int = 1,
    by_postgres: int | None = None,
    mode: str = "singleflight",
    plan: Plan | None = None,
) -> RunLog:
    """A log of `samples` around counters that say what they are told."""
    return RunLog(
        plan=plan or Plan(),
        url="http://127.0.0.1:8080",
        mode=mode,
        version="9.9",
        ttl_s=30.0,
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        samples=samples,
        counted=Counted(loads, 3, 2, 1, {"origin": 1}, by_postgres),
    )
