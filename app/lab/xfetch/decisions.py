"""XFetch without any coordination, simulated: every read asks the cache's own decision, on a clock that is a number."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from app.cache.freshness import LONGEST_LEAD, wants_early_refresh

CONFIDENCE = 0.95
SIGMAS = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
TAIL = 0.01


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure from a sample, with half the width of its interval of `CONFIDENCE`."""

    value: float
    within: float


@dataclass(frozen=True, slots=True)
class Cell:
    """`refreshes` simulated at one β and one rate: loads a refresh, and how long before the expiry they begin.

    `gap` is in loads' times. `p99_count` is the 99th percentile as a count; `p99` as a real number, where the share of
    refreshes with more loads, drawn on a logarithmic scale between two counts, is 1 %.
    """

    refreshes: int
    mean: Estimate
    one: Estimate
    p99: Estimate
    p99_count: int
    gap: Estimate


def simulate(beta: float, rate: float, refreshes: int, draws: random.Random) -> Cell:
    """`rate` is rδ, reads in the time of one load."""
    outcomes = [_refresh(beta, rate, draws) for _ in range(refreshes)]
    loads = [count for count, _ in outcomes]
    gaps = [gap for _, gap in outcomes]
    ones = loads.count(1) / refreshes
    p99, p99_count = _p99(sorted(loads))
    # Of the share beyond: sqrt((1 − q)/(q·n)), relative; over the slope of its logarithm, from one count to the next.
    slope = math.log(100) / p99
    return Cell(
        refreshes,
        _mean(loads),
        Estimate(ones, SIGMAS * math.sqrt(ones * (1 - ones) / refreshes)),
        Estimate(p99, SIGMAS * math.sqrt((1 - TAIL) / (TAIL * refreshes)) / slope),
        p99_count,
        _mean(gaps),
    )


def _refresh(beta: float, rate: float, draws: random.Random) -> tuple[int, float]:
    """The loads of one refresh, and how long before the expiry the first one began. The time of a load is 1."""
    loads, began = 0, math.inf
    for at, drawn in _candidates(beta, rate, draws):
        if at >= began + 1.0:
            break
        if wants_early_refresh(at, 0.0, 1.0, beta, drawn):
            loads += 1
            began = min(began, at)
    return loads, -began


def _candidates(beta: float, rate: float, draws: random.Random) -> Iterator[tuple[float, float]]:
    """Reads that may load, in order: when they come, the value expiring at 0, and what they draw.

    Of a Poisson stream of reads, each with a number drawn from (0, 1], those with a number of at most q are a Poisson
    stream of q times the rate. In a stretch of time that ends x before the expiry no number above q = e^(−x/β) loads:
    reads that draw one are left out, which changes nothing but the time this takes.
    """
    # No read comes earlier into question, as none draws a number below 2^-53.
    at = -LONGEST_LEAD * beta
    steps = math.ceil(math.log(rate * beta + 1)) + 5
    for end in itertools.chain((-beta * n for n in range(steps, -1, -1)), [math.inf]):
        most = min(1.0, math.exp(end / beta)) if end < 0 else 1.0
        while True:
            at += draws.expovariate(rate * most)
            if at >= end:
                at = end  # the stream has no memory: what comes after begins anew
                break
            yield at, most * (1.0 - draws.random())


def _mean(values: list[int] | list[float]) -> Estimate:
    return Estimate(fmean(values), SIGMAS * stdev(values) / math.sqrt(len(values)))


def _p99(ordered: list[int]) -> tuple[float, int]:
    """The 99th percentile of counts, as a real number and as a count."""
    count = ordered[math.ceil(len(ordered) * (1 - TAIL)) - 1]
    beyond = _share_above(ordered, count)
    before = _share_above(ordered, count - 1)
    if beyond <= 0.0:
        return float(count), count
    return count - 1 + math.log(before / TAIL) / math.log(before / beyond), count


def _share_above(ordered: list[int], count: int) -> float:
    return sum(value > count for value in ordered) / len(ordered)
