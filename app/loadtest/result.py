"""The figures of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from app.loadtest.latency import percentile
from app.loadtest.least import least_loads
from app.loadtest.log import RunLog


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run in figures, by the names of the JSON report.

    `hit_ratio` is the share of good responses that needed no load of their own (`X-Cache` other than `origin`);
    `db_loads` is the app's count of load queries that the database answered, `db_loads_by_postgres` PostgreSQL's own,
    or `None` where it was not read; `least_loads` is the fewest that could have done (`least.least_loads`); `shared`
    the callers that got another caller's flight. Latencies are exact nearest-rank percentiles over good responses, in
    milliseconds, `None` where there was no good one. `rps` counts good responses a second.
    """

    mode: str
    requests: int
    errors: int
    hit_ratio: float
    db_loads: int
    db_loads_by_postgres: int | None
    least_loads: int
    shared: int
    rps: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @classmethod
    def of(cls, log: RunLog) -> RunResult:
        good = log.good
        ordered = sorted(sample.seconds for sample in good)

        def ms(share: float) -> float | None:
            return round(percentile(ordered, share) * 1e3, 3) if ordered else None

        spared = sum(sample.source != "origin" for sample in good)
        return cls(
            mode=log.mode,
            requests=len(log.samples),
            errors=len(log.samples) - len(good),
            hit_ratio=round(spared / len(good), 4) if good else 0.0,
            db_loads=log.counted.db_loads,
            db_loads_by_postgres=log.counted.db_loads_by_postgres,
            least_loads=least_loads(((s.key, s.start, s.end) for s in good), log.ttl_s),
            shared=log.counted.shared,
            rps=round(len(good) / log.seconds, 1) if log.seconds else 0.0,
            p50_ms=ms(0.5),
            p95_ms=ms(0.95),
            p99_ms=ms(0.99),
            max_ms=ms(1.0),
        )

    @property
    def stampede_factor(self) -> float | None:
        """Database loads against the least possible number; 1 is perfect, `None` where nothing had to be loaded."""
        return self.db_loads / self.least_loads if self.least_loads else None

    def as_json(self) -> dict[str, str | int | float | None]:
        return asdict(self)


def complaints(log: RunLog) -> list[str]:
    """Why the run is no success, a line each; none where all is well."""
    lines = []
    kinds = Counter(sample.error for sample in log.samples if sample.error)
    if kinds:
        lines.append(f"{kinds.total():,} of {len(log.samples):,} requests failed: {count_words(kinds)}")
    by_metrics, by_postgres = log.counted.db_loads, log.counted.db_loads_by_postgres
    if by_postgres is not None and by_postgres != by_metrics:
        lines.append(
            f"the counts of database loads differ: {by_metrics:,} by the app's metrics, {by_postgres:,} by PostgreSQL; "
            "was there other traffic, or a second app with the same database role?"
        )
    return lines


def count_words(counts: Mapping[str, int]) -> str:
    """`{"timeout": 3}` as `3 × timeout`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} × {name}" for name, count in ordered)
