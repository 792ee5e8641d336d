"""The experiment: the fleet simulated, the same without lease and L1, and eight replicas beside eight processes."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path

from app.lab.experiment import Experiment, Options
from app.lab.result import Result, Verdict
from app.lab.scale import judgement, pages
from app.lab.scale.aside import Job, aside
from app.lab.scale.contrast import singleflight
from app.lab.scale.plan import whole
from app.lab.scale.real import Comparison, alike, measure, small
from app.lab.scale.world import simulate

SIMULATIONS = 12
"""Of the eight replicas, beside the eight processes."""
NOTES = (
    (
        "What runs is app/cache and app/concurrency, wired as the service wires them; Redis' scripts are those of the "
        "model that tests hold equal to a real server's."
    ),
    (
        "Left out: CPU time and the garbage collector (a hit takes no time here, and no replica is ever busy), the "
        "network stack, HTTP and gRPC, connecting, PostgreSQL's own queues (a load takes as long however many run), "
        "its loss, and that of the feed of changes. A load balancer knows at once which replicas serve. "
        "Redis is one thread: 10 µs a command, 0.5 µs a message to a subscriber. Those are assumptions, as are the "
        "network's delays."
    ),
    (
        "The least possible: one perfect cache in front of the database, greedily, key by key. A load covers the reads "
        "of one TTL, or those up to the next change made past the service; a change through the service covers as much."
    ),
    (
        "Without L1 and lease: a cold start and one end of each life, with clocks that agree. Without any protection: "
        "derived, 1 + λδ loads a life."
    ),
)


def run(options: Options) -> Result:
    """Raises `EmbeddedError` where the real processes can't be started, `TargetError` where they can't be asked."""
    plan, few, seed, progress = whole(quick=options.quick), small(quick=options.quick), options.seed, options.progress
    progress(0.0, f"{few.replicas} real processes, for {few.seconds:.0f} s of reads")
    measured = measure(few, seed)
    before, peak = _resident_bytes(), 0

    def shown(share: float, doing: str) -> None:
        nonlocal peak
        peak = max(peak, _resident_bytes())
        progress(0.2 + 0.7 * share, f"{plan.replicas} replicas, {doing} of {plan.seconds:.0f} of virtual time")

    with aside([Job(singleflight(plan), seed), *alike(few, measured, seed, SIMULATIONS)]) as beside:
        fleet = simulate(plan, seed, shown)
        progress(0.9, "the same without lease and L1")
        alone = beside.outcome()
        simulated = []
        for number in range(1, SIMULATIONS + 1):
            progress(0.95, f"the reads of the real processes simulated, {number} of {SIMULATIONS}")
            simulated.append(len(beside.outcome().loads))
    comparison = Comparison(measured, simulated)
    process_bytes = (peak - before) / plan.replicas if before else math.nan
    verdicts: list[Verdict] = [
        *judgement.of_fleet(fleet),
        judgement.of_contrast(alone),
        judgement.of_real(comparison, few),
    ]
    return Result(
        tables=[
            pages.phase_table(fleet),
            pages.redis_table(fleet),
            pages.memory_table(fleet, process_bytes),
            pages.mode_table(fleet, alone),
            pages.real_table(comparison, few),
        ],
        charts={"loads": pages.load_chart(fleet), "redis": pages.redis_chart(fleet)},
        verdicts=verdicts,
        figures={
            "fleet": fleet.as_json(),
            "singleflight": alone.as_json(),
            "real": {**asdict(comparison), "margin": comparison.margin},
            "process_bytes_a_replica": None if math.isnan(process_bytes) else round(process_bytes),
        },
        notes=NOTES,
    )


def _resident_bytes() -> int:
    """What this process has in memory; 0 where the system does not say so."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


SCALE = Experiment(
    "scale",
    "200 replicas, 2,000 keys by Zipf's law, 20,000 reads a second (quick: 10, 100, 1,000), with crashes, a Redis "
    "failover and clocks that differ: how far from the least possible are the loads, what does Redis have to do, and "
    "what does a replica hold?",
    run,
)
