"""Real processes beside simulated ones, small: the same reads, and about as many loads."""

from __future__ import annotations

from dataclasses import replace

from app.lab.scale.plan import Phase
from app.lab.scale.real import Comparison, alike, measure, small
from app.lab.scale.world import simulate


def test_two_real_processes_load_about_as_often_as_two_simulated_ones() -> None:
    plan = replace(small(quick=True), replicas=2, keys=10, rate=80.0, phases=(Phase("all", 4.0),))
    measured = measure(plan, seed=1)
    jobs = alike(plan, measured, seed=1, simulations=4)
    comparison = Comparison(
        measured, [len(simulate(job.plan, job.seed, reads_seed=job.reads_seed).loads) for job in jobs]
    )
    assert comparison.measured.failed == 0
    # Far wider than in the lab: a machine that is busy for a second makes the lives of that second longer.
    assert 0.6 * comparison.mean <= comparison.measured.loads <= 1.3 * comparison.mean
    assert 35 <= comparison.mean <= 60
