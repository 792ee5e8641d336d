"""What came of a run."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from statistics import fmean, stdev

from app.lab.scale.plan import Plan

CALM = "calm"
PARTS = 10
"""Of the keys, by whose spread a standard error is estimated."""

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "longest": 1.0}


@dataclass(frozen=True, slots=True)
class Sample:
    """All counters, as far as they have come at `at` seconds from the first read; and what L1 takes then a replica."""

    at: float
    reads: int
    from_l1: int
    waited: int
    loads: int
    least: int
    commands: Mapping[str, int]
    delivered: int
    redis_busy_s: float
    counts: Mapping[str, int]
    failed: int
    l1_mean_bytes: float
    l1_most_bytes: int


@dataclass(frozen=True, slots=True)
class Outage:
    """While Redis could not be asked by all: `loads`, against the values that were read where they were `lacking` (each
    version of a key and each replica once, and what was under way when it began) and the `early` refreshes."""

    began_at: float
    ended_at: float
    loads: int
    lacking: int
    early: int


@dataclass(frozen=True, slots=True)
class Factor:
    """How many times as often as it had to be, `value`, a key was loaded; `sigma` is that estimate's standard error.

    It is by the spread over parts of the keys: a key's changes shorten its gaps in both rates alike.
    """

    value: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """What happened between two samples."""

    name: str
    seconds: float
    reads: int
    from_l1: int
    loads: int
    least: int
    commands: Mapping[str, int]
    delivered: int
    redis_busy: float
    """The share of the time in which its one thread worked."""
    stale: int
    early: int
    failed: int
    l1_mean_bytes: float
    l1_most_bytes: int
    latency_s: Mapping[str, float]
    """Quantiles of the reads' times; a hit in L1 takes none in virtual time."""

    @property
    def commands_a_s(self) -> float:
        return sum(self.commands.values()) / self.seconds


@dataclass
class Outcome:
    """Times are seconds from the first read. `loads` and `least` are when and of what key each began or was needed."""

    plan: Plan
    seed: int
    samples: list[Sample] = field(default_factory=list)
    loads: list[tuple[float, str]] = field(default_factory=list)
    least: list[tuple[float, str]] = field(default_factory=list)
    waited_s: array[float] = field(default_factory=lambda: array("d"))
    failed: Counter[str] = field(default_factory=Counter)
    cut_off: int = 0
    """Callers of replicas that crashed."""
    unanswered: int = 0
    changed_past: list[float] = field(default_factory=list)
    """When changes were made past the service."""
    crashed_at: list[float] = field(default_factory=list)
    outage: Outage | None = None
    most_at_once: int = 0
    """Loads of one key."""
    outdated: int = 0
    """Reads that were given what another version had replaced when they began."""
    longest_outdated_s: float = 0.0
    longest_announcement_s: float = 0.0
    oldest_stale_s: float = 0.0

    def outdated_for(self, seconds: float) -> None:
        """A read's answer was out of date for so long when the read began; 0 where it was not."""
        if seconds > 0:
            self.outdated += 1
            self.longest_outdated_s = max(self.longest_outdated_s, seconds)

    def stretch(self, name: str, began: float, end: float) -> Stretch:
        """Between the samples at these two times."""
        first = next(sample for sample in self.samples if sample.at >= began)
        last = next(sample for sample in reversed(self.samples) if sample.at <= end)
        seconds = last.at - first.at
        commands = {
            kind: count
            for kind in sorted(last.commands)
            if (count := last.commands[kind] - first.commands.get(kind, 0))
        }
        waited = sorted(self.waited_s[first.waited : last.waited])
        return Stretch(
            name=name,
            seconds=seconds,
            reads=last.reads - first.reads,
            from_l1=last.from_l1 - first.from_l1,
            loads=last.loads - first.loads,
            least=last.least - first.least,
            commands=commands,
            delivered=last.delivered - first.delivered,
            redis_busy=(last.redis_busy_s - first.redis_busy_s) / seconds,
            stale=_stale(last) - _stale(first),
            early=last.counts.get("early refresh", 0) - first.counts.get("early refresh", 0),
            failed=last.failed - first.failed,
            l1_mean_bytes=last.l1_mean_bytes,
            l1_most_bytes=last.l1_most_bytes,
            latency_s={name: _quantile(waited, last.reads - first.reads, rank) for name, rank in QUANTILES.items()},
        )

    @property
    def phases(self) -> list[Stretch]:
        """The plan's, one after the other."""
        began, stretches = 0.0, []
        for phase in self.plan.phases:
            stretches.append(self.stretch(phase.name, began, began + phase.seconds))
            began += phase.seconds
        return stretches

    @property
    def calm(self) -> tuple[float, float, Stretch]:
        """The phase of that name, with its beginning and end."""
        began = 0.0
        for phase in self.phases:
            if phase.name == CALM:
                return began, began + phase.seconds, phase
            began += phase.seconds
        raise ValueError(f"the plan has no phase {CALM}")

    @property
    def factors(self) -> dict[str, Factor | None]:
        """`factor` by phase; `None` for the first, in which hardly a life ends."""
        began, factors = 0.0, dict[str, Factor | None]()
        for phase in self.plan.phases:
            factors[phase.name] = self.factor(began, began + phase.seconds) if began else None
            began += phase.seconds
        return factors

    @property
    def whole(self) -> Stretch:
        return self.stretch("all", 0.0, self.plan.seconds)

    def factor(self, began: float, end: float) -> Factor:
        """The rate of loads against the least possible one, by the times between two loads of a key.

        Counts would not do over a few lives: keys that were cold together end their lives together, and whether one
        more of those ends falls into the stretch is chance.
        """
        least, real = _gaps_s(self.least, began, end), _gaps_s(self.loads, began, end)
        parts = [
            _ratio({key: least[key] for key in part}, {key: real[key] for key in part})
            for number in range(PARTS)
            if (part := [key for key in least if key in real and int(key) % PARTS == number])
        ]
        return Factor(_ratio(least, real), stdev(parts) / len(parts) ** 0.5 if len(parts) > 1 else 0.0)

    def as_json(self) -> dict[str, object]:
        """The figures; the same for the same plan and seed."""
        return {
            "seed": self.seed,
            "mode": self.plan.mode.value,
            "phases": [asdict(phase) for phase in self.phases],
            "all": asdict(self.whole),
            "factors": {name: factor and asdict(factor) for name, factor in self.factors.items()},
            "samples": [
                {"at": sample.at, "loads": sample.loads, "least": sample.least, "commands": sample.commands}
                for sample in self.samples
            ],
            "outage": None if self.outage is None else asdict(self.outage),
            "most_at_once": self.most_at_once,
            "failed": dict(self.failed),
            "cut_off": self.cut_off,
            "unanswered": self.unanswered,
            "crashed_at": self.crashed_at,
            "outdated": self.outdated,
            "longest_outdated_s": self.longest_outdated_s,
            "longest_announcement_s": self.longest_announcement_s,
            "oldest_stale_s": self.oldest_stale_s,
        }


def _stale(sample: Sample) -> int:
    return sum(count for name, count in sample.counts.items() if name.startswith("stale: "))


def _quantile(waited: Sequence[float], reads: int, share: float) -> float:
    """Of so many reads, those that are not in `waited`, sorted, took no time."""
    rank = math.ceil(share * reads) - 1 - (reads - len(waited))
    return waited[min(rank, len(waited) - 1)] if rank >= 0 and waited else 0.0


def _gaps_s(events: Sequence[tuple[float, str]], began: float, end: float) -> dict[str, list[float]]:
    """By key, between one and the next, of those gaps that end in the stretch."""
    last: dict[str, float] = {}
    gaps: dict[str, list[float]] = defaultdict(list)
    for at, key in events:
        if key in last and began <= at < end:
            gaps[key].append(at - last[key])
        last[key] = at
    return gaps


def _ratio(least: Mapping[str, Sequence[float]], real: Mapping[str, Sequence[float]]) -> float:
    """Of the mean gaps over all keys, whose inverses are the mean rates of a key."""
    return fmean(chain.from_iterable(least.values())) / fmean(chain.from_iterable(real.values()))
