"""Which key is read when."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from random import Random
from typing import NamedTuple

from app.lab.scale.plan import Plan


def zipf_shares(keys: int, s: float) -> list[float]:
    """Of all reads, the share of each key: the k-th gets as much as k^−s is of them all."""
    weights = [rank**-s for rank in range(1, keys + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


class Arrivals:
    """A Poisson process of `rate` a second, of keys `"1"` to `"n"` by Zipf's law."""

    def __init__(self, keys: int, zipf_s: float, rate: float, random: Random) -> None:
        self._names = [str(rank) for rank in range(1, keys + 1)]
        self._up_to = list(accumulate(zipf_shares(keys, zipf_s)))
        self._up_to[-1] = 1.0
        self._rate = rate
        self._random = random

    def pause_s(self) -> float:
        """Up to the next one."""
        return self._random.expovariate(self._rate)

    def key(self) -> str:
        """What it is of."""
        return self._names[bisect_left(self._up_to, self._random.random())]

    def place(self, of: int) -> int:
        """Where it goes, of so many places that all get as much."""
        return int(self._random.random() * of)


class Read(NamedTuple):
    """One of the plan's reads: `at` seconds from the beginning, of `key`, at the replica of number `place`."""

    at: float
    key: str
    place: int


def reads(plan: Plan, seed: int) -> Arrivals:
    """The plan's, for this seed."""
    return Arrivals(plan.keys, plan.zipf_s, plan.rate, Random(f"{seed} reads"))


def schedule(plan: Plan, seed: int) -> list[Read]:
    """All of them beforehand, as `simulate` draws them while no replica is down."""
    arrivals, scheduled = reads(plan, seed), []
    at = arrivals.pause_s()
    while at < plan.seconds:
        scheduled.append(Read(at, arrivals.key(), arrivals.place(plan.replicas)))
        at += arrivals.pause_s()
    return scheduled
