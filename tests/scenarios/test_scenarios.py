"""Each scenario, short, on real servers: what must hold on a machine however busy it is."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from app.scenarios.catalogue import SCENARIOS, find
from app.scenarios.options import Options
from app.scenarios.pages import html, line, verdict_table
from app.scenarios.promise import Promise
from app.scenarios.run import Outcome, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LONG_LOADS = {"APP_LOAD_DELAY_MS": "1000", "APP_LOAD_DEADLINE_S": "2", "APP_LEASE_S": "3"}
"""So long that even a slow kill hits one."""
SHORT = {
    "redis-outage": Options(duration_s=4, replicas=2, rate=100, keys=20),
    "redis-slow": Options(duration_s=4, replicas=2, rate=100, keys=20),
    "postgres-outage": Options(duration_s=4, replicas=2, rate=100, keys=20),
    "postgres-slow": Options(duration_s=4, replicas=2, rate=50, keys=16, cold_keys=300),
    "replica-crash": Options(duration_s=3, replicas=3, rate=50, keys=10, settings=LONG_LOADS),
    "invalidation": Options(duration_s=3, replicas=2, rate=50, keys=20),
    "thundering-restart": Options(duration_s=2, replicas=3, rate=50, keys=20, settings={"APP_REDIS_TIMEOUT_S": "5"}),
}
QUIET_MACHINE_ONLY = (
    "p99 of hits meanwhile",
    "p99 of those refusals",
    "UPDATE seen by every replica",
    "loads of any one key",  # where Redis does not answer in time, a replica loads for itself
)
"""Bars that other work on the machine breaks: there they are measured, and not held to."""
ROOM_FOR_A_STALL = (
    "p99 during the outage",
    "slowest request during the outage",
    "answers during the outage older than a write",
    "last of 20 callers",
    "oldest answer, LISTEN cut",
    "answers older than that",
)
"""Bars that one process' stall breaks: there nothing that was measured may be past them by more than `STALL_MS`."""
STALL_MS = 3_000.0


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_a_scenario_keeps_its_promises(name: str) -> None:
    shown: list[str] = []
    outcome = run(find(name), SHORT[name], lambda news: shown.append(line(news)))
    broken = [each for each in outcome.verdict.promises if not each.ok and not _excused(each)]
    assert not broken, "\n".join(shown)
    assert not any(each.measured == "not measured" for each in outcome.verdict.promises)
    assert len(outcome.timeline.marks) >= 2
    assert shown
    _is_told_in_full(outcome, ["python", "-m", "app", "scenario", name])


def _excused(promise: Promise) -> bool:
    if promise.what.startswith(ROOM_FOR_A_STALL):
        bar_ms, measured_ms = _ms(promise.bar) or _ms(promise.what), _ms(promise.measured)
        return measured_ms <= bar_ms + STALL_MS
    return promise.what.startswith(QUIET_MACHINE_ONLY)


def _ms(text: str) -> float:
    """The figure in milliseconds that a text tells; 0 where it tells none."""
    found = re.search(r"([\d.,]+) ms", text)
    return float(found[1].replace(",", "")) if found else 0.0


def _is_told_in_full(outcome: Outcome, command: Sequence[str]) -> None:
    page = html(outcome, command)
    assert verdict_table(outcome).row_count == len(outcome.verdict.promises)
    for mark in outcome.timeline.marks:
        assert mark.label in page
    assert page.count("<svg") == 3
