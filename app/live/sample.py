"""One second of one application."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from app.live.meter import Totals

TIERS: Final = ("l1", "l2", "origin", "stale")
"""Where an answer came from that no other caller brought."""
QUANTILES: Final = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
MAX_MODE_CHARS: Final = 32
MAX_COUNT: Final = 1e15
"""More is no count, and sums of what is less are numbers that JSON has."""
FACTOR_SAMPLES: Final = 60
"""So many samples the stampede factor looks back: a minute."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rates a second, and latencies in milliseconds: `None` where no request ended.

    Of an application that is away (`up` is false) everything else is zero or `None`.
    """

    mode: str
    up: bool = True
    replicas: int = 1
    requests: float = 0.0
    loads: float = 0.0
    least_loads: float = 0.0
    hits: Mapping[str, float] | None = None
    shared: float = 0.0
    in_flight: int = 0
    latencies_ms: Mapping[str, float | None] | None = None

    def fields(self, factor: float | None) -> dict[str, Any]:
        """As the page gets it."""
        hits = self.hits or {}
        latencies = self.latencies_ms or {}
        return {
            "mode": self.mode,
            "up": self.up,
            "replicas": self.replicas,
            "requests_s": _short(self.requests),
            "loads_s": _short(self.loads),
            "least_loads_s": _short(self.least_loads),
            "hits_s": {tier: _short(hits.get(tier, 0.0)) for tier in TIERS},
            "shared_s": _short(self.shared),
            "in_flight": self.in_flight,
            **{name: _short(latencies.get(name)) for name in QUANTILES},
            "stampede_factor": _short(factor),
        }


def between(mode: str, before: Totals, after: Totals, seconds: float, bounds_s: Sequence[float]) -> Sample:
    """What happened in the `seconds` between two readings of one process."""

    def rate(name: str) -> float:
        return (after.answers[name] - before.answers[name]) / seconds

    counts = [now - then for now, then in zip(after.latencies, before.latencies, strict=True)]
    return Sample(
        mode,
        requests=(after.requests - before.requests) / seconds,
        loads=(after.loads - before.loads) / seconds,
        least_loads=(after.least_loads - before.least_loads) / seconds,
        hits={tier: rate(tier) for tier in TIERS},
        shared=rate("shared"),
        in_flight=after.in_flight,
        latencies_ms={name: _ms(quantile(counts, bounds_s, share)) for name, share in QUANTILES.items()},
    )


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The value that `share` of those counted are below, as Prometheus' `histogram_quantile` estimates it: evenly
    spread within its bucket; in the last, which has no upper bound, that bucket's lower one. `None` of none."""
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    for index, upto in enumerate(accumulate(counts)):
        if upto >= rank and counts[index]:
            if index == len(bounds):
                break
            lower = bounds[index - 1] if index else 0.0
            return lower + (bounds[index] - lower) * (rank - upto + counts[index]) / counts[index]
    return bounds[-1]


def parse(fields: Any) -> Sample | None:
    """A sample as another application tells it; `None` for anything else."""
    if not isinstance(fields, dict) or fields.get("up") is not True:
        return None
    mode, hits = fields.get("mode"), fields.get("hits_s")
    if not isinstance(mode, str) or len(mode) > MAX_MODE_CHARS or not isinstance(hits, dict):
        return None
    try:
        requests, loads, least, shared, in_flight = (
            _count(fields.get(name)) for name in ("requests_s", "loads_s", "least_loads_s", "shared_s", "in_flight")
        )
        tiers = {tier: _count(hits.get(tier, 0.0)) for tier in TIERS}
        latencies = {name: None if fields.get(name) is None else _count(fields[name]) for name in QUANTILES}
    except ValueError:
        return None
    return Sample(mode, True, 1, requests, loads, least, tiers, shared, int(in_flight), latencies)


def summed(samples: Sequence[Sample]) -> Sample:
    """Several replicas as one application. Latencies are the worst replica's: quantiles can't be added."""
    up = [sample for sample in samples if sample.up]
    if len(samples) == 1 or not up:
        return samples[0]

    def worst(name: str) -> float | None:
        known = [(each.latencies_ms or {}).get(name) for each in up]
        return max((value for value in known if value is not None), default=None)

    return Sample(
        " ".join(sorted({sample.mode for sample in up})),
        replicas=len(up),
        requests=sum(sample.requests for sample in up),
        loads=sum(sample.loads for sample in up),
        least_loads=sum(sample.least_loads for sample in up),
        hits={tier: sum((sample.hits or {}).get(tier, 0.0) for sample in up) for tier in TIERS},
        shared=sum(sample.shared for sample in up),
        in_flight=sum(sample.in_flight for sample in up),
        latencies_ms={name: worst(name) for name in QUANTILES},
    )


class StampedeFactor:
    """Loads for each that was needed, over the last minute of samples."""

    def __init__(self) -> None:
        self._last: deque[tuple[float, float]] = deque(maxlen=FACTOR_SAMPLES)

    def after(self, sample: Sample) -> float | None:
        """With this sample; `None` where no load was needed, or the application is away."""
        self._last.append((sample.loads, sample.least_loads))
        least = sum(least for _, least in self._last)
        return sum(loads for loads, _ in self._last) / least if least and sample.up else None


def _count(value: object) -> float:
    """Raises `ValueError` for what is no number from 0 to `MAX_COUNT`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise ValueError("no count")
    return value


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _short(value: float | None) -> float | None:
    """Three decimals, which nobody sees more of."""
    return None if value is None else round(value, 3)
