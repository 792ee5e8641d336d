"""Plans of the fleet that are small enough for a test."""

from __future__ import annotations

from app.lab.scale.plan import Phase, Plan
from app.settings import Mode

TINY = Plan(
    mode=Mode.FULL,
    replicas=5,
    keys=30,
    rate=400.0,
    phases=(Phase("warm-up", 2.0), Phase("calm", 4.0), Phase("crashes", 3.0), Phase("failover", 4.0)),
    ttl_s=2.0,
    writes_a_s=4.0,
    crashes=2,
    crash_at_s=6.5,
    crash_over_s=1.0,
    down_s=0.5,
    failover_at_s=9.5,
    refused_s=1.0,
)
"""Everything happens in it."""
