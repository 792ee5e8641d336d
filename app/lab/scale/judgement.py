"""Verdicts: what the fleet was measured to do, against what is derived."""

from __future__ import annotations

import math

from app.lab.result import Verdict, held
from app.lab.scale.contrast import counted_loads_a_life
from app.lab.scale.outcome import Factor, Outcome
from app.lab.scale.plan import Plan
from app.lab.scale.real import SIGMAS, TIMING, Comparison
from app.lab.scale.theory import least_rate, loads_a_life, most_rate
from app.report.table import milliseconds, share

NEAR = 0.05
"""How far, as a share, loads a life may be from what is derived: the time of a load has Redis' part left out."""


def of_fleet(outcome: Outcome) -> list[Verdict]:
    """All that must hold of the whole fleet in mode `full`."""
    return [_cold(outcome), *_factors(outcome), *_failover(outcome), _nobody_fails(outcome), *_ages(outcome)]


def of_contrast(outcome: Outcome) -> Verdict:
    """Singleflight alone: a flight a key and process, and so a load for each process that is asked meanwhile."""
    plan = outcome.plan
    counted = counted_loads_a_life(outcome)
    measured = sum(counted.values()) / len(counted)
    derived = sum(loads_a_life(plan, rank, plan.replicas) for rank in range(1, plan.keys + 1)) / plan.keys
    lives = outcome.whole.least
    margin = NEAR * derived + SIGMAS * math.sqrt((derived - 1) / lives)
    return held(
        "singleflight alone: loads a life, mean over the keys",
        f"{derived:.3f}",
        f"{measured:.3f}",
        f"± {margin:.3f}",
        abs(measured - derived) <= margin,
        "1 + R(1 − e^(−λδ/R)) for a key that is read λ times a second: of the reads that come while it is loaded, δ, "
        f"each replica's first loads as well. For the hottest key {loads_a_life(plan, 1, plan.replicas):.0f}. The bar: "
        f"{NEAR:.0%}, as Redis' part of the time is left out of δ, and {SIGMAS:g} standard errors, of {lives:,} lives.",
    )


def of_real(comparison: Comparison, plan: Plan) -> Verdict:
    """The simulation beside real processes."""
    measured = comparison.measured
    return held(
        f"{plan.replicas} real processes and {plan.replicas} simulated ones, the same reads: loads",
        f"{comparison.mean:.1f}",
        f"{measured.loads:,}, {measured.failed} reads failed",
        f"± {comparison.margin:.1f}, 0",
        comparison.agrees and not measured.failed,
        f"The interval is {SIGMAS:g} sigmas, each the spread over {len(comparison.simulated)} seeds for one more run, "
        f"and {TIMING:.0%} besides for timers and answers that are late on a real machine. The simulation is given the "
        f"reads, one by one, and the mean time of a load as measured, {milliseconds(1000 * measured.mean_load_s)}.",
    )


def _cold(outcome: Outcome) -> Verdict:
    end = outcome.plan.ttl_s / 2
    loads = sum(at < end for at, _ in outcome.loads)
    least = sum(at < end for at, _ in outcome.least)
    changes = sum(at < end for at in outcome.changed_past)
    return held(
        "the cold fleet: loads in the first half of a life",
        f"{least:,}, the least",
        f"{loads:,}",
        f"≤ {least + changes:,}",
        loads <= least + changes,
        "One a key, whoever asks, by the lease. A change that is made past the service may meet a load in the air, "
        f"which is then made once more: {changes} changes.",
    )


def _factors(outcome: Outcome) -> list[Verdict]:
    plan, factors = outcome.plan, outcome.factors
    least = least_rate(plan)
    return [
        _factor(
            "calm",
            factors["calm"],
            most_rate(plan) / least,
            "Derived from what shortens lives: the jitter, in the mean by half its share, and the early refresh, by at "
            "most βδ(ln rβδ + γ). Measured by the times between two loads of a key, as counts over a few lives depend "
            "on how many of the ends, which come in waves, fall into a phase.",
        ),
        _factor("crashes", factors["crashes"], most_rate(plan) / least, "A crash costs no load: Redis has the values."),
        _factor(
            "after the failover",
            factors["after"],
            most_rate(plan, plan.skew_s) / least,
            "As before, and up to the skew besides: of the values that several replicas loaded while Redis was away, "
            "it keeps the one of the latest date, by clocks that differ, which need not be the last one.",
        ),
    ]


def _factor(when: str, factor: Factor | None, derived: float, reason: str) -> Verdict:
    assert factor is not None  # noqa: S101 - it is so for the first phase only
    bar = derived + SIGMAS * factor.sigma
    return held(
        f"{when}: rate of loads against the least possible",
        f"≤ {derived:.3f}",
        f"{factor.value:.3f} ± {factor.sigma:.3f}",
        f"≤ {bar:.3f}",
        factor.value <= bar,
        f"{reason} The bar leaves room for {SIGMAS:g} standard errors.",
    )


def _failover(outcome: Outcome) -> list[Verdict]:
    outage = outcome.outage
    if outage is None:
        return []
    bar = outage.lacking + outage.early
    return [
        held(
            f"failover: loads in the {outage.ended_at - outage.began_at:.1f} s until all ask Redis again",
            f"≤ {bar:,}",
            f"{outage.loads:,}",
            f"≤ {bar:,}",
            outage.loads <= bar,
            "While Redis is away each process loads for itself, each key once a life: one load for each "
            f"replica and value that was read there and not in L1 ({outage.lacking:,}), and the early refreshes "
            f"({outage.early:,}).",
        )
    ]


def _nobody_fails(outcome: Outcome) -> Verdict:
    failed = sum(outcome.failed.values())
    return held(
        "reads that failed, or were never answered",
        "0",
        f"{failed + outcome.unanswered:,} of {outcome.whole.reads:,}",
        "0",
        failed + outcome.unanswered == 0,
        f"Not counted are those in the hands of a replica as it crashed: {outcome.cut_off}.",
    )


def _ages(outcome: Outcome) -> list[Verdict]:
    plan = outcome.plan
    oldest_s = plan.ttl_s + plan.settings.grace_s
    return [
        held(
            "the longest after a change that a read began and got the value before it",
            f"≤ {milliseconds(1000 * outcome.longest_announcement_s)}, the slowest announcement",
            milliseconds(1000 * outcome.longest_outdated_s),
            f"≤ {milliseconds(1000 * outcome.longest_announcement_s)}",
            outcome.longest_outdated_s <= outcome.longest_announcement_s,
            f"{outcome.outdated} of {outcome.whole.reads:,} reads ({share(outcome.outdated / outcome.whole.reads)}) "
            "came between a change and word of it.",
        ),
        held(
            "the oldest value served past its life",
            f"≤ {oldest_s:.0f} s, TTL and grace",
            f"{outcome.oldest_stale_s:.1f} s",
            f"≤ {oldest_s:.0f} s",
            outcome.oldest_stale_s <= oldest_s,
            "By the clock of the replica that served it. Nothing has changed it since: see the line before.",
        ),
    ]
