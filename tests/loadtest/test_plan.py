from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest

from app.loadtest.errors import PlanError
from app.loadtest.plan import Plan


def test_the_defaults_are_the_go_demos_7500_requests() -> None:
    plan = Plan()
    assert (plan.concurrency, plan.waves, plan.ids) == (200, 25, 220)
    assert plan.requests == 7_500


def test_every_wave_has_a_cold_key_of_its_own() -> None:
    keys = list(Plan(waves=25).wave_keys())
    assert len(keys) == len(set(keys)) == 25


def test_a_seed_fixes_the_spread_keys_and_another_changes_them() -> None:
    def keys(seed: int) -> list[int]:
        return list(islice(Plan(seed=seed, waves=1, ids=9).spread_keys(), 500))

    assert keys(7) == keys(7) != keys(8)
    assert set(keys(7)) == set(range(1, 10))


@pytest.mark.parametrize(
    ("flag", "changes"),
    [
        ("--concurrency", {"concurrency": 0}),
        ("--concurrency", {"concurrency": -1}),
        ("--concurrency", {"concurrency": 10_001}),
        ("--waves", {"waves": 0}),
        ("--ids", {"ids": 0}),
        ("--ids", {"ids": 24}),
        ("--spread", {"spread": -1}),
        ("--timeout", {"timeout_s": 0.0}),
        ("--timeout", {"timeout_s": float("nan")}),
        ("--duration", {"duration_s": 0.0}),
        ("--duration", {"duration_s": float("inf")}),
        ("--duration", {"duration_s": float("nan")}),
        ("requests", {"waves": 2_000, "ids": 2_000, "concurrency": 10_000}),
    ],
)
def test_a_workload_that_makes_no_sense_is_refused_in_one_line_that_names_the_flag(
    flag: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(PlanError, match=flag) as caught:
        Plan(**changes)
    assert "\n" not in str(caught.value)


def test_a_sustained_run_has_no_waves_to_need_ids_for() -> None:
    assert Plan(ids=1, duration_s=2).requests == 0


@pytest.mark.parametrize("plan", [Plan(), Plan(seed=4, spread=0, keep_caches=True), Plan(duration_s=2.5, ids=3)])
def test_the_flags_of_a_plan_name_all_that_differs_from_the_defaults(plan: Plan) -> None:
    flags = plan.flags()
    given = dict(pairwise(flags))
    again = Plan(
        concurrency=int(given["--concurrency"]),
        waves=int(given.get("--waves", 25)),
        ids=int(given["--ids"]),
        spread=int(given.get("--spread", 2_500)),
        seed=int(given["--seed"]),
        duration_s=float(given["--duration"]) if "--duration" in given else None,
        keep_caches="--keep-caches" in flags,
    )
    assert again == plan
