from __future__ import annotations

import json

from app.loadtest.result import RunResult, complaints
from tests.loadtest.logs import run_log, sample


def test_the_json_has_exactly_the_agreed_names() -> None:
    result = RunResult.of(run_log([sample()])).as_json()
    assert list(json.loads(json.dumps(result))) == [
        "mode", "requests", "errors", "hit_ratio", "db_loads", "db_loads_by_postgres", "least_loads", "shared", "rps",
        "p50_ms", "p95_ms", "p99_ms", "max_ms",
    ]  # fmt: skip


def test_the_figures_of_a_small_log() -> None:
    log = run_log(
        [
            sample(1, 0.0, 0.060, "origin"),
            sample(1, 0.0, 0.070, "shared"),
            sample(1, 1.0, 1.001, "l2"),
            sample(2, 1.5, 2.0, "origin", error="status 503"),
        ],
        loads=2,
        by_postgres=2,
    )
    result = RunResult.of(log)
    assert (result.requests, result.errors, result.hit_ratio) == (4, 1, round(2 / 3, 4))
    assert (result.db_loads, result.db_loads_by_postgres, result.least_loads, result.shared) == (2, 2, 1, 3)
    assert (result.p50_ms, result.p95_ms, result.max_ms) == (60.0, 70.0, 70.0)
    assert result.rps == 1.5
    assert result.stampede_factor == 2.0


def test_a_run_in_which_all_failed_has_no_latencies_and_no_hits() -> None:
    result = RunResult.of(run_log([sample(error="timeout")] * 3, loads=0))
    assert (result.errors, result.hit_ratio, result.rps, result.p50_ms, result.max_ms) == (3, 0.0, 0.0, None, None)
    assert result.stampede_factor is None


def test_an_empty_log_is_no_division_by_zero() -> None:
    assert RunResult.of(run_log([], loads=0)).rps == 0.0


def test_counts_that_differ_are_complained_of_with_both_figures() -> None:
    (line,) = complaints(run_log([sample()], loads=220, by_postgres=221))
    assert "220 by the app's metrics, 221 by PostgreSQL" in line


def test_counts_that_agree_or_were_not_both_taken_are_no_complaint() -> None:
    assert complaints(run_log([sample()], loads=5, by_postgres=5)) == []
    assert complaints(run_log([sample()], loads=5, by_postgres=None)) == []
