"""What a load test sends: stampedes on cold keys, then reads spread over many keys; or reads for a while."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from app.loadtest.errors import PlanError

MAX_CONCURRENCY = 10_000
MAX_REQUESTS = 5_000_000
MAX_IDS = 1_000_000
MAX_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A workload; the same plan always sends the same keys, in the same order.

    Wave w of `waves` is `concurrency` simultaneous reads of id w, which nobody has read before: a stampede on a cold
    key. Then `concurrency` workers share `spread` reads of ids 1 to `ids`, drawn with `seed`. With `duration_s` set,
    there is neither: the workers read ids drawn in that way for so many seconds, over as many expiries as fit.

    A request that takes longer than `timeout_s` has failed. Raises `PlanError`.
    """

    concurrency: int = 200
    waves: int = 25
    ids: int = 220
    spread: int = 2_500
    seed: int = 1
    duration_s: float | None = None
    timeout_s: float = 30.0
    keep_caches: bool = False

    def __post_init__(self) -> None:
        _check("--concurrency", self.concurrency, 1, MAX_CONCURRENCY)
        _check("--waves", self.waves, 1, MAX_REQUESTS)
        _check("--ids", self.ids, 1, MAX_IDS)
        _check("--spread", self.spread, 0, MAX_REQUESTS)
        if not 0 < self.timeout_s <= MAX_SECONDS:
            raise PlanError(f"--timeout must be above 0 and at most {MAX_SECONDS:g} seconds, is {self.timeout_s:g}")
        if self.duration_s is not None:
            if not 0 < self.duration_s <= MAX_SECONDS:
                raise PlanError(
                    f"--duration must be above 0 and at most {MAX_SECONDS:g} seconds, is {self.duration_s:g}"
                )
            return
        if self.ids < self.waves:
            raise PlanError(f"--ids must be at least --waves, one cold id a wave: {self.ids} ids, {self.waves} waves")
        if self.requests > MAX_REQUESTS:
            raise PlanError(f"at most {MAX_REQUESTS:,} requests a run, these flags ask for {self.requests:,}")

    @property
    def requests(self) -> int:
        """Requests in all; not known beforehand, and 0 here, where `duration_s` is set."""
        return 0 if self.duration_s is not None else self.concurrency * self.waves + self.spread

    def wave_keys(self) -> range:
        """The key of each wave, in order."""
        return range(1, self.waves + 1)

    def spread_keys(self) -> Iterator[int]:
        """Keys of the spread phase, without end; take `spread` of them."""
        draw = random.Random(self.seed)
        while True:
            yield draw.randint(1, self.ids)

    def describe(self) -> str:
        """The workload in one sentence without its full stop."""
        if self.duration_s is not None:
            return (
                f"{self.concurrency:,} connections read ids 1–{self.ids:,} at random for {self.duration_s:g} s "
                f"(seed {self.seed})"
            )
        waves = f"{self.waves:,} waves of {self.concurrency:,} simultaneous reads of one cold id each"
        if not self.spread:
            return waves
        return f"{waves}, then {self.spread:,} reads spread over ids 1–{self.ids:,} (seed {self.seed})"

    def flags(self) -> list[str]:
        """The command-line flags that repeat this plan."""
        flags = ["--concurrency", str(self.concurrency)]
        if self.duration_s is not None:
            flags += ["--duration", f"{self.duration_s:g}"]
        else:
            flags += ["--waves", str(self.waves), "--spread", str(self.spread)]
        flags += ["--ids", str(self.ids), "--seed", str(self.seed)]
        return [*flags, "--keep-caches"] if self.keep_caches else flags


def _check(flag: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise PlanError(f"{flag} must be from {least} to {most:,}, is {value:,}")
