"""XFetch in formulas (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015).

Reads are a Poisson stream of rate r; a load takes δ; a read x before the expiry loads with probability e^(−x/βδ). So
the loads begun by then are on average Λ(x) = a·e^(−x/βδ), where a = rβδ, and the first one comes where Λ is an
exponential variable s of mean 1. Until its value is there, δ later, others begin Λ(x − δ) − Λ(x) = s·(e^(1/β) − 1)
more, a Poisson variable: over all s that makes the loads of a refresh geometric with p = e^(−1/β), whatever r is. It
holds for a ≫ 1, where hardly any first load comes so late that the value expires meanwhile.
"""

from __future__ import annotations

import math

EULER_GAMMA = 0.577_215_664_901_532_9
VALID_FROM = 50.0
"""The a = rβδ from which on the formulas are held to: less than one refresh in a thousand then runs into the expiry."""


def chance_of_one(beta: float) -> float:
    """P(one load a refresh), which is p of the geometric distribution."""
    return math.exp(-1.0 / beta)


def mean_loads(beta: float) -> float:
    """Loads a refresh, on average: 1/p."""
    return math.exp(1.0 / beta)


def p99_loads(beta: float) -> float:
    """The loads that 99 % of refreshes do not exceed, as a real number: ln 0.01 / ln(1 − p); as a count, rounded up."""
    return math.log(0.01) / math.log1p(-chance_of_one(beta))


def mean_gap(beta: float, rate: float) -> float:
    """How long before the expiry a refresh begins, on average, in loads' times δ: β(ln(rβδ) + γ), with `rate` rδ."""
    return beta * (math.log(rate * beta) + EULER_GAMMA)


def unprotected(rate: float) -> float:
    """Loads an expiry where nothing refreshes early and nothing is shared: the first miss, and rδ until it is over."""
    return 1.0 + rate
