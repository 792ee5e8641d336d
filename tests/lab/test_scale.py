"""The simulated fleet: the same for the same seed, and what must hold of it."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from app.cache.loader import Loader
from app.lab.errors import LabError
from app.lab.result import Standing, Verdict
from app.lab.scale import judgement, pages
from app.lab.scale.aside import Job, aside
from app.lab.scale.contrast import counted_loads_a_life, singleflight
from app.lab.scale.outcome import Outcome
from app.lab.scale.plan import Phase, whole
from app.lab.scale.theory import loads_a_life
from app.lab.scale.workload import schedule
from app.lab.scale.world import simulate
from app.settings import Mode
from tests.lab.scale_plans import TINY


def _digest(outcome: Outcome) -> str:
    return hashlib.sha256(json.dumps(outcome.as_json()).encode()).hexdigest()


@pytest.fixture(scope="module")
def tiny() -> Outcome:
    return simulate(TINY, seed=1)


@pytest.fixture(scope="module")
def quick() -> Outcome:
    return simulate(whole(quick=True), seed=1)


@pytest.fixture(scope="module")
def alone(quick: Outcome) -> Outcome:
    """The same without lease and L1."""
    return simulate(singleflight(quick.plan), seed=1)


def _broken(verdicts: list[Verdict]) -> list[str]:
    return [verdict.claim for verdict in verdicts if verdict.standing is not Standing.HOLDS]


def test_the_same_seed_gives_the_same_figures_to_the_byte_in_another_process(tiny: Outcome) -> None:
    """Whatever order that process' sets have, and whatever its environment says of the settings."""
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    script = (
        "from app.lab.scale.world import simulate; from tests.lab.scale_plans import TINY; "
        "from tests.lab.test_scale import _digest; print(_digest(simulate(TINY, seed=1)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "APP_CACHE_TTL_S": "77"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert said.stdout.strip() == _digest(tiny)


def test_another_seed_gives_other_figures(tiny: Outcome) -> None:
    assert _digest(simulate(TINY, seed=2)) != _digest(tiny)


def test_crashes_failover_and_changes_do_happen(tiny: Outcome) -> None:
    assert len(tiny.crashed_at) == TINY.crashes
    assert tiny.outage is not None
    assert tiny.outage.ended_at - tiny.outage.began_at >= TINY.refused_s
    assert tiny.outage.loads > 0
    assert tiny.changed_past
    # those that crashed, and all once more after the failover, have subscribed again
    assert tiny.whole.commands["subscribe"] >= TINY.replicas + TINY.crashes
    assert tiny.whole.commands["invalidate"] > len(tiny.changed_past)


def test_all_that_is_claimed_of_the_fleet_holds(quick: Outcome) -> None:
    assert _broken(judgement.of_fleet(quick)) == []


def test_every_read_is_accounted_for(quick: Outcome) -> None:
    last = quick.samples[-1]
    whole_run = quick.whole
    assert sum(phase.reads for phase in quick.phases) == whole_run.reads
    assert sum(phase.loads for phase in quick.phases) == whole_run.loads
    # but for those that are under way as the counters are read for the last time, every read has been answered
    assert 0 <= last.reads - (last.waited + whole_run.from_l1) <= whole_run.reads / 1000 + quick.cut_off + last.failed


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (lambda outcome: outcome.failed.update({"LoadDeadlineError": 1}), "reads that failed"),
        (lambda outcome: setattr(outcome, "unanswered", 1), "reads that failed"),
        (lambda outcome: setattr(outcome, "longest_outdated_s", 0.3), "the longest after a change"),
        (lambda outcome: setattr(outcome, "oldest_stale_s", 20.1), "the oldest value"),
        (lambda outcome: setattr(outcome, "outage", replace(outcome.outage, loads=100_000)), "failover"),
        (lambda outcome: outcome.loads.extend((0.1, key) for _, key in outcome.least[:20]), "the cold fleet"),
        (lambda outcome: setattr(outcome, "loads", _every_other(outcome, "calm")), "calm"),
    ],
)
def test_what_is_not_so_breaks_its_claim(quick: Outcome, change: object, claim: str) -> None:
    outcome = Outcome(quick.plan, quick.seed)
    for name in quick.__dataclass_fields__:
        value = getattr(quick, name)
        setattr(outcome, name, value.copy() if isinstance(value, list | Counter) else value)
    assert callable(change)
    change(outcome)
    broken = _broken(judgement.of_fleet(outcome))
    assert broken
    assert broken[0].startswith(claim)


def _every_other(outcome: Outcome, phase: str) -> list[tuple[float, str]]:
    """As if in one phase each life had ended half a second early."""
    began, end, _ = outcome.calm
    assert phase == "calm"
    more = [(at + 1.0, key) for at, key in outcome.loads if began <= at < end - 1.0]
    return sorted(outcome.loads + more)


def test_a_key_is_loaded_once_a_life_where_singleflight_alone_loads_it_once_a_process(
    quick: Outcome, alone: Outcome
) -> None:
    plan, counted = alone.plan, counted_loads_a_life(alone)
    began, end, _ = quick.calm
    together = counted_loads_a_life(quick, began, end)
    assert counted["1"] == pytest.approx(loads_a_life(plan, 1, plan.replicas), rel=0.35)
    assert judgement.of_contrast(alone).standing is Standing.HOLDS
    # a change past the service may find a load in the air, which is then made once more
    assert sum(together.values()) / len(together) < 1.1


def test_reads_that_are_scheduled_beforehand_are_those_that_a_simulation_makes() -> None:
    plan = replace(TINY, crashes=0, failover_at_s=None, writes_a_s=0.0, phases=(Phase("all", 4.0),))
    scheduled = schedule(plan, 7)
    one, other = (simulate(plan, seed, reads_seed=7) for seed in (1, 2))
    assert one.whole.reads == other.whole.reads == len(scheduled)
    first_reads = {read.key: read.at for read in reversed(scheduled)}
    assert {key: at for at, key in reversed(one.least)} == pytest.approx(first_reads, abs=1e-6)
    assert one.loads != other.loads


def test_an_outage_costs_as_many_loads_as_keys_that_replicas_lack(tiny: Outcome) -> None:
    assert tiny.outage is not None
    assert tiny.outage.loads <= tiny.outage.lacking + tiny.outage.early
    calm = simulate(replace(TINY, failover_at_s=None), seed=1)
    assert calm.outage is None
    assert calm.whole.loads < tiny.whole.loads


def test_a_simulation_aside_gives_what_it_gives_here_and_ends_with_its_context() -> None:
    plan = replace(TINY, phases=(Phase("all", 2.0),), crashes=0, failover_at_s=None, mode=Mode.SINGLEFLIGHT)
    hour = replace(plan, phases=(Phase("all", 3600.0),))
    with aside([Job(plan, 3), Job(plan, 3, reads_seed=4), Job(hour, 3)]) as beside:
        assert _digest(beside.outcome()) == _digest(simulate(plan, 3))
        assert _digest(beside.outcome()) == _digest(simulate(plan, 3, reads_seed=4))


def test_a_process_aside_that_ends_too_early_is_a_failure_and_not_a_hang() -> None:
    with aside([]) as beside, pytest.raises(LabError, match="ended"):
        beside.outcome()


def test_tables_and_charts_are_made_of_any_run(quick: Outcome, alone: Outcome) -> None:
    tables = [pages.phase_table(quick), pages.redis_table(quick), pages.mode_table(quick, alone)]
    assert all(table.rows for table in tables)
    assert pages.memory_table(quick, float("nan")).rows[-1].cells[-1] == "–"
    for chart in (pages.load_chart(quick), pages.redis_chart(quick)):
        assert "Redis fails over" in chart.svg


def test_a_read_that_fails_for_whatever_reason_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Loader, key: str) -> None:
        raise ZeroDivisionError(key)

    monkeypatch.setattr(Loader, "read", broken)
    plan = replace(TINY, phases=(Phase("warm-up", 1.0),), writes_a_s=0.0, crashes=0, failover_at_s=None)
    outcome = simulate(plan, seed=1)
    assert outcome.failed == {"ZeroDivisionError": outcome.whole.reads}


def test_a_run_that_is_interrupted_leaves_nothing_behind(recwarn: pytest.WarningsRecorder) -> None:
    """Loads in the air included, whose leases are to be given back."""

    def interrupt(share: float, doing: str) -> None:
        raise KeyboardInterrupt

    complaints: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "asyncio.BaseEventLoop.call_exception_handler", lambda _, told: complaints.append(told["message"])
        )
        with pytest.raises(KeyboardInterrupt):
            simulate(replace(TINY, load_s=1.0), 1, interrupt)
        gc.collect()
    assert complaints == []
    assert not recwarn.list
    assert gc.isenabled()
