"""Real processes beside simulated ones, small: the same reads, and about as many loads."""

from __future__ import annotations

from dataclasses import replace

from app.lab.scale.plan import Phase
from app.lab.scale.real import Comparison, alike, measure, small
from app.lab.scale.world import simulate


def test_two_real_processes_load_about_as_often_as_two_simulated_ones() -> None:
    # Four lives a value, each so long that a machine which is busy for a second or two takes little of one.
    plan = replace(small(quick=True), replicas=2, keys=10, ttl_s=2.5, rate=32.0, phases=(Phase("all", 10.0),))
    measured = measure(plan, seed=1)
    jobs = alike(plan, measured, seed=1, simulations=4)
    comparison = Comparison(
        measured, [len(simulate(job.plan, job.seed, reads_seed=job.reads_seed).loads) for job in jobs]
    )
    assert comparison.measured.failed == 0
    # Far wider than in the lab: a machine that is busy makes the lives of that time longer.
    assert 0.6 * comparison.mean <= comparison.measured.loads <= 1.3 * comparison.mean
    assert 35 <= comparison.mean <= 60
