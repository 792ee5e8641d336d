from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from app.lab import loadtest_go
from app.lab.experiment import Options
from app.lab.result import Standing
from app.loadtest.plan import Plan
from app.loadtest.result import RunResult

GOOD = RunResult("full", 7_500, 0, 0.9707, 220, 220, 220, 4_975, 3_000.0, 61.0, 146.0, 372.0, 498.0)


def test_the_plan_runs_on_a_real_app_and_both_counts_are_the_least_possible() -> None:
    told: list[float] = []
    options = Options(progress=lambda share, _doing: told.append(share))
    results = loadtest_go.measure(Plan(concurrency=10, waves=3, ids=8, spread=100), ["full"], options)
    assert (results["full"].requests, results["full"].errors, results["full"].mode) == (130, 0, "full")
    assert results["full"].db_loads == results["full"].db_loads_by_postgres == results["full"].least_loads == 8
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_as_many_loads_as_the_least_possible_hold_and_the_published_shared_calls_cannot_be_had() -> None:
    result = loadtest_go.result({"singleflight": GOOD, "full": GOOD}, Plan())
    assert result.ok
    assert [each.claim for each in result.verdicts if each.standing is Standing.NOT_REPRODUCED] == [
        "singleflight: shared calls",
        "full: shared calls",
    ]
    assert result.tables[0].columns == ["Go demo", "singleflight", "full"]


def test_the_unprotected_run_is_shown_and_held_to_nothing() -> None:
    bad = dataclasses.replace(GOOD, mode="none", db_loads=5_366, db_loads_by_postgres=5_366, hit_ratio=0.28)
    assert loadtest_go.result({"none": bad, "full": GOOD}, Plan()).ok


@pytest.mark.parametrize(
    "change",
    [{"errors": 1}, {"hit_ratio": 0.96}, {"db_loads": 221, "db_loads_by_postgres": 221}, {"db_loads_by_postgres": 219}],
)
def test_an_error_a_load_too_many_or_counts_that_differ_break_the_claim(change: dict[str, Any]) -> None:
    assert not loadtest_go.result({"full": dataclasses.replace(GOOD, **change)}, Plan()).ok
