"""What is simulated: the fleet, its load, and what happens to it when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from app.settings import Mode, Settings


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run that is accounted for by itself."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate` are reads a second of the whole fleet, `zipf_s` the exponent of their keys' popularity.

    Of `writes_a_s`, every second one is made through a replica, the others past the service. `load_s` is the median
    time of a load, and `load_spread` the standard deviation of its logarithm. Clocks of replicas differ by up to
    `skew_s`. Replicas that crash do so one after the other, evenly over `crash_over_s` from `crash_at_s` on, and are
    back after `down_s`. Redis fails over at `failover_at_s`: it refuses connections for `refused_s`, and then lacks
    what was written in the last `lost_s` before. Times are seconds from the beginning; `None` is never.
    """

    mode: Mode
    replicas: int
    keys: int
    rate: float
    phases: Sequence[Phase]
    zipf_s: float = 1.0
    ttl_s: float = 10.0
    load_s: float = 0.05
    load_spread: float = 0.2
    payload_bytes: int = 400
    writes_a_s: float = 5.0
    skew_s: float = 1.0
    crashes: int = 0
    crash_at_s: float = 0.0
    crash_over_s: float = 0.0
    down_s: float = 3.0
    failover_at_s: float | None = None
    refused_s: float = 2.0
    lost_s: float = 0.5

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def ends(self) -> list[float]:
        """Of the phases."""
        return list(accumulate(phase.seconds for phase in self.phases))

    @property
    def settings(self) -> Settings:
        """The replicas' settings: the defaults, whatever this process' environment says, but for mode, TTL and skew."""
        return Settings.model_construct(mode=self.mode, cache_ttl_s=self.ttl_s, clock_skew_s=self.skew_s)


def whole(*, quick: bool) -> Plan:
    """Everything that may happen, in mode `full`: five lives of a value."""
    size = {"replicas": 10, "keys": 100, "rate": 1_000.0, "writes_a_s": 2.0} if quick else {}
    return Plan(
        **{"mode": Mode.FULL, "replicas": 200, "keys": 2_000, "rate": 20_000.0, **size},  # type: ignore[arg-type]
        phases=(
            Phase("warm-up", 10.0),
            Phase("calm", 15.0),
            Phase("crashes", 8.0),
            Phase("failover", 7.0),
            Phase("after", 10.0),
        ),
        crashes=2 if quick else 20,
        crash_at_s=26.0,
        crash_over_s=4.0,
        failover_at_s=34.0,
    )
