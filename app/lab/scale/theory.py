"""What is to be expected of loads, derived."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.lab.scale.plan import Plan
from app.lab.scale.workload import zipf_shares
from app.lab.xfetch.theory import EULER_GAMMA


def least_rate(plan: Plan) -> float:
    """Loads a second of a perfect cache: each life a whole TTL, and then the wait for the key's next read."""
    return sum(1 / (plan.ttl_s + 1 / rate) for rate in _rates(plan))


def most_rate(plan: Plan, early_s: float = 0.0) -> float:
    """Loads a second at most, in the mean, while nothing is broken; lives end so many seconds early besides.

    Each life is shorter than the TTL by the jitter, half of its share in the mean, and by the early refresh, at most by
    what XFetch takes from it where all of the key's reads may begin one; and a read comes at once when it ends. That
    clocks differ changes nothing in the mean: whose clock is ahead sees the end early, and dates what it loads late.
    """
    settings = plan.settings
    life_s = plan.ttl_s * (1 - settings.cache_ttl_jitter / 2)
    load_s = plan.load_s * math.exp(plan.load_spread**2 / 2)
    return sum(1 / (life_s - early_s - mean_lead_s(rate, load_s, settings.early_refresh_beta)) for rate in _rates(plan))


def mean_lead_s(rate: float, load_s: float, beta: float) -> float:
    """How long before the end of a life its early refresh begins, in the mean; of Poisson reads at `rate` a second.

    A read that comes x before the end begins it with probability e^(−x/βδ) (XFetch, VLDB 2015), so by x none has with
    probability exp(−a·e^(−x/βδ)), a = rβδ. The mean over x > 0 is βδ·Ein(a), which is βδ(ln a + γ) for a ≫ 1.
    """
    scale = beta * load_s
    a = rate * scale
    if a > 20:  # the series is no use any more, and what is left out is below e^-20
        return scale * (math.log(a) + EULER_GAMMA)
    term, total = -1.0, 0.0
    for n in range(1, 100):
        term *= -a / n
        total += term / n
    return scale * total


def loads_a_life(plan: Plan, rank: int, replicas: float) -> float:
    """Of the `rank`-th key, in the mean, where each of so many processes loads for itself, one load at a time.

    The first read after the end of a life loads; in the time until its value is there, δ, come λδ others, of which each
    process' first loads as well: 1 + R(1 − e^(−λδ/R)). Without any protection it is 1 + λδ: `replicas` is infinite.
    """
    others = _rates(plan)[rank - 1] * plan.load_s
    return 1 + (others if math.isinf(replicas) else replicas * -math.expm1(-others / replicas))


def _rates(plan: Plan) -> Sequence[float]:
    """Reads a second, key by key."""
    return [plan.rate * share for share in zipf_shares(plan.keys, plan.zipf_s)]
