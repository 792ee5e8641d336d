"""The same fleet without lease and L1, and without any protection."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import replace

from app.lab.scale.outcome import Outcome
from app.lab.scale.plan import Phase, Plan
from app.lab.scale.theory import loads_a_life
from app.settings import Mode

TOGETHER_S = 1.0
"""Longer than a load takes, and far shorter than a life."""


def singleflight(plan: Plan) -> Plan:
    """A cold start and one end of each life. Clocks agree: where they differ not all see the same end at once."""
    return replace(
        plan,
        mode=Mode.SINGLEFLIGHT,
        phases=(Phase("cold", plan.ttl_s / 2), Phase("calm", plan.ttl_s)),
        skew_s=0.0,
        writes_a_s=0.0,
        crashes=0,
        failover_at_s=None,
    )


def counted_loads_a_life(outcome: Outcome, began: float = 0.0, end: float = math.inf) -> dict[str, float]:
    """By key, the mean number of loads that belong together: each begun within `TOGETHER_S` of the one before it."""
    times: dict[str, list[float]] = defaultdict(list)
    for at, key in outcome.loads:
        if began <= at < end:
            times[key].append(at)
    return {
        key: len(each) / (1 + sum(later - earlier > TOGETHER_S for earlier, later in itertools.pairwise(each)))
        for key, each in times.items()
    }


def derived_rate(plan: Plan, replicas: float) -> float:
    """Loads a second where each of so many processes loads for itself (infinite: each read)."""
    return sum(
        loads_a_life(plan, rank, replicas) / (plan.ttl_s * (1 - plan.settings.cache_ttl_jitter / 2) + plan.load_s)
        for rank in range(1, plan.keys + 1)
    )
