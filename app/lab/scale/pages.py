"""The fleet's figures as tables and charts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from app.lab.scale.contrast import counted_loads_a_life, derived_rate
from app.lab.scale.outcome import Outcome, Stretch
from app.lab.scale.plan import Plan
from app.lab.scale.real import Comparison
from app.lab.scale.theory import loads_a_life
from app.report.charts import Axis, Mark, Series, xy_chart
from app.report.html import Chart
from app.report.svg import Svg
from app.report.table import Row, Table, count, milliseconds, share, times

KINDS = ("take", "put", "invalidate", "release")


def phase_table(outcome: Outcome) -> Table:
    """Loads, answers and their times, phase by phase."""
    phases, factors = outcome.phases, list(outcome.factors.values())
    return Table(
        f"{outcome.plan.replicas} replicas, {outcome.plan.keys:,} keys, {outcome.plan.rate:,.0f} reads a second",
        [phase.name for phase in phases],
        [
            Row("virtual time", [f"{phase.seconds:.0f} s" for phase in phases]),
            Row("reads", [count(phase.reads) for phase in phases]),
            Row("answered from L1", [share(phase.from_l1 / phase.reads) for phase in phases]),
            Row("served in its grace", [share(phase.stale / phase.reads) for phase in phases]),
            Row("loads", [count(phase.loads) for phase in phases], strong=True),
            Row("the least possible", [count(phase.least) for phase in phases]),
            Row(
                "rate against the least",
                [times(None if factor is None else factor.value) for factor in factors],
                strong=True,
            ),
            Row("loads ahead of an expiry", [count(phase.early) for phase in phases]),
            Row("reads failed", [count(phase.failed) for phase in phases]),
            *(
                Row(f"a read, {name}", [milliseconds(1000 * phase.latency_s[name]) for phase in phases])
                for name in phases[0].latency_s
            ),
        ],
    )


def redis_table(outcome: Outcome) -> Table:
    """What Redis has to do."""
    phases, replicas = outcome.phases, outcome.plan.replicas

    def a_second(phase: Stretch, *kinds: str) -> str:
        return f"{sum(phase.commands.get(kind, 0) for kind in kinds) / phase.seconds:,.0f}"

    others = sorted({kind for phase in phases for kind in phase.commands} - {*KINDS})
    return Table(
        "Redis, a second",
        [phase.name for phase in phases],
        [
            Row("commands", [f"{phase.commands_a_s:,.0f}" for phase in phases], strong=True),
            *(Row(f"· {kind}", [a_second(phase, kind) for phase in phases]) for kind in KINDS),
            Row(f"· {', '.join(others)}", [a_second(phase, *others) for phase in phases]),
            Row("commands a replica", [f"{phase.commands_a_s / replicas:,.1f}" for phase in phases]),
            Row("wake-ups delivered", [f"{phase.delivered / phase.seconds:,.0f}" for phase in phases]),
            Row("its thread is busy", [share(phase.redis_busy) for phase in phases]),
        ],
    )


def memory_table(outcome: Outcome, process_bytes: float) -> Table:
    """Of the process that simulates, what it had grown by, a replica."""
    phases = outcome.phases
    whole = "–" if math.isnan(process_bytes) else _megabytes(process_bytes)
    return Table(
        "Memory a replica, at the end of the phase: L1 by its own account; the process that simulates",
        [phase.name for phase in phases],
        [
            Row("L1, mean", [_megabytes(phase.l1_mean_bytes) for phase in phases]),
            Row("L1, most", [_megabytes(phase.l1_most_bytes) for phase in phases]),
            Row("the process, a replica", ["–"] * (len(phases) - 1) + [whole]),
        ],
    )


def mode_table(full: Outcome, singleflight: Outcome) -> Table:
    """What lease and L1 are good for."""
    plan = singleflight.plan
    alone, (began, end, calm) = singleflight.phases[-1], full.calm
    counted = [counted_loads_a_life(singleflight), counted_loads_a_life(full, began, end)]
    unprotected = derived_rate(plan, math.inf)
    mean = sum(loads_a_life(plan, rank, math.inf) for rank in range(1, plan.keys + 1)) / plan.keys
    return Table(
        "The same load, by mode",
        ["none, derived", "singleflight", "full, calm"],
        [
            Row(
                "loads a life, over all keys",
                [f"{mean:.3f}", *(f"{sum(each.values()) / len(each):.3f}" for each in counted)],
                strong=True,
            ),
            Row(
                "loads a life, the hottest key",
                [f"{loads_a_life(plan, 1, math.inf):.1f}", *(f"{each['1']:.1f}" for each in counted)],
            ),
            Row("loads a second", [f"{unprotected:,.0f}", _rate(alone.loads, alone), _rate(calm.loads, calm)]),
            Row(
                "Redis commands a second",
                [f"{plan.rate + unprotected:,.0f}", f"{alone.commands_a_s:,.0f}", f"{calm.commands_a_s:,.0f}"],
            ),
            Row("answered from L1", ["–", share(alone.from_l1 / alone.reads), share(calm.from_l1 / calm.reads)]),
            *(
                Row(
                    f"a read, {name}",
                    ["–", milliseconds(1000 * alone.latency_s[name]), milliseconds(1000 * calm.latency_s[name])],
                )
                for name in calm.latency_s
            ),
        ],
    )


def real_table(comparison: Comparison, plan: Plan) -> Table:
    """The simulation beside what is simulated."""
    measured, simulated = comparison.measured, comparison.simulated
    lives = plan.seconds / plan.ttl_s
    return Table(
        f"{plan.replicas} replicas, {plan.keys} keys, {lives:.0f} lives of {plan.ttl_s:g} s, {measured.reads:,} reads",
        ["real processes", f"simulated, {len(simulated)} seeds"],
        [
            Row("loads", [f"{measured.loads:,}", f"{comparison.mean:.1f}"], strong=True),
            Row("least and most", ["–", f"{min(simulated):,} to {max(simulated):,}"]),
            Row("mean time of a load", [milliseconds(1000 * measured.mean_load_s)] * 2),
            Row("reads failed", [count(measured.failed), "0"]),
            Row("sent late by at most", [milliseconds(1000 * measured.latest_s), "–"]),
        ],
    )


def load_chart(outcome: Outcome) -> Chart:
    """Loads a second against the least possible."""
    return Chart(
        "Loads a second",
        _over_time(outcome, "Loads a second and the least possible", {"loads": "loads", "the least possible": "least"}),
        "Keys that were cold together end their lives together; jitter parts them, life by life. While Redis is away "
        "each replica loads for itself.",
    )


def redis_chart(outcome: Outcome) -> Chart:
    """Commands a second, by kind."""
    return Chart(
        "Redis commands a second",
        _over_time(outcome, "Redis commands a second, by kind", {kind: kind for kind in KINDS[:3]}),
        "A take is a read that L1 had not fresh; an invalidation is one replica's word of one change, and every "
        "replica says it. When Redis is back, each replica puts what it holds.",
    )


def _over_time(outcome: Outcome, label: str, counters: Mapping[str, str]) -> Svg:
    """Counters by name, a second each, with room above them for the marks."""
    series = [Series(name, _each_second(outcome, what), style="step") for name, what in counters.items()]
    most = max(value for one in series for _, value in one.points)
    return xy_chart(
        f"{label}, over time",
        series,
        Axis("virtual time, s", low=0.0, high=outcome.plan.seconds),
        Axis("a second", log=True, low=1.0, high=10 * most),
        marks=_marks(outcome),
    )


def _each_second(outcome: Outcome, what: str) -> list[tuple[float, float]]:
    """A logarithmic axis has no 0: seconds without any are drawn as 1."""
    counted = [
        (sample.at, sample.commands.get(what, 0) if what in KINDS else getattr(sample, what))
        for sample in outcome.samples
        if sample.at == int(sample.at)
    ]
    rises = [(began, max(1.0, value - before)) for (began, before), (_, value) in itertools.pairwise(counted)]
    return [*rises, (counted[-1][0], rises[-1][1])]  # to the end of the last second


def _marks(outcome: Outcome) -> list[Mark]:
    marks = []
    if outcome.crashed_at:
        marks.append(Mark(outcome.crashed_at[0], f"{len(outcome.crashed_at)} crash, one by one"))
    if outcome.outage is not None:
        marks.append(Mark(outcome.outage.began_at, "Redis fails over"))
        marks.append(Mark(outcome.outage.ended_at, "all ask it again"))
    return marks


def _rate(number: int, stretch: Stretch) -> str:
    return f"{number / stretch.seconds:,.0f}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"
