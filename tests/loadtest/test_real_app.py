"""The load test against the real app on real servers: what the figures promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import floor
from typing import Any

import pytest

from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.loadtest.log import RunLog
from app.loadtest.plan import Plan
from app.loadtest.progress import Silent
from app.loadtest.result import RunResult, complaints
from app.loadtest.runner import run
from app.loadtest.target import Target

JITTER = 0.1
PAUSE_S = 0.05


@pytest.fixture
def serving(stack: EmbeddedStack, database_url: str, redis_url: str) -> Callable[..., Any]:
    """Call it with settings for a context that runs an app with them, and gives the target that it is."""

    @contextmanager
    def start(*, grpc: bool = False, **settings: str) -> Iterator[Target]:
        environment = {
            "APP_DATABASE_URL": database_url,
            "APP_REDIS_URL": redis_url,
            "APP_CACHE_TTL_JITTER": str(JITTER),
            "APP_LOG_LEVEL": "warning",
            # Nobody gives up on a server that is kept from running for a while.
            "APP_REDIS_TIMEOUT_S": "10",
            "APP_BULKHEAD_TIMEOUT_S": "30",
            "APP_DATABASE_CONNECT_TIMEOUT_S": "30",
            **{f"APP_{name.upper()}": value for name, value in settings.items()},
        }
        with Replica(environment) as replica:
            yield Target(
                url=replica.http_url,
                database_url=database_url.replace("//app@", "//loadtest@"),
                redis_url=redis_url,
                grpc_target=replica.grpc_target if grpc else None,
            )

    return start


async def load(plan: Plan, target: Target) -> RunLog:
    log = await run(plan, target, Silent())
    assert complaints(log) == []  # no request failed, and PostgreSQL's count is the app's
    assert log.counted.db_loads_by_postgres is not None
    return log


@pytest.mark.parametrize("mode", ["singleflight", "fleet", "full"])
async def test_by_default_a_protected_replica_loads_the_least_possible_number_of_times(
    serving: Callable[..., Any], mode: str
) -> None:
    with serving(mode=mode, load_delay_ms="50") as target:
        result = RunResult.of(await load(Plan(), target))
    assert (result.requests, result.errors) == (7_500, 0)
    assert result.db_loads == result.least_loads == 220


async def test_over_grpc_the_same_plan_takes_the_same_loads(serving: Callable[..., Any]) -> None:
    with serving(grpc=True, mode="full", load_delay_ms="50") as target:
        log = await load(Plan(), target)
    result = RunResult.of(log)
    assert (result.requests, result.errors) == (7_500, 0)
    assert result.db_loads == result.least_loads == 220


async def test_without_protection_every_caller_of_a_cold_key_loads_it(serving: Callable[..., Any]) -> None:
    with serving(mode="none", load_delay_ms="200") as target:
        result = RunResult.of(await load(Plan(concurrency=40, waves=3, ids=3, spread=0), target))
    assert result.least_loads == 3
    # A caller that comes only when another's load is in Redis takes it from there; 20 connections load at a time.
    assert 3 * 20 <= result.db_loads <= 3 * 40
    assert result.hit_ratio == pytest.approx(1 - result.db_loads / 120, abs=1e-4)


@pytest.mark.parametrize("mode", ["singleflight", "fleet", "full"])
async def test_caches_are_emptied_before_a_run_and_kept_when_asked(serving: Callable[..., Any], mode: str) -> None:
    plan = {"concurrency": 5, "waves": 4, "ids": 4, "spread": 0}
    with serving(mode=mode) as target:
        loads = [(await load(Plan(**plan, keep_caches=keep), target)).counted.db_loads for keep in (False, False, True)]
    assert loads == [4, 4, 0]


def pauses(log: RunLog) -> list[float]:
    """How long no answer came, each time that it was so long that somebody was kept from running."""
    ends = sorted(sample.end for sample in log.samples)
    return [gap for before, after in pairwise(ends) if (gap := after - before) > PAUSE_S]


async def test_over_many_expiries_loads_stay_within_the_jitters_share_of_the_least(serving: Callable[..., Any]) -> None:
    # A life is shortened by up to the jitter's share, and a key's next load begins when it is over, or later.
    ids, ttl_s = 10, 0.4
    with serving(mode="singleflight", cache_ttl_s=str(ttl_s)) as target:
        log = await load(Plan(concurrency=8, ids=ids, duration_s=4.0), target)
    result = RunResult.of(log)
    assert log.ttl_s == ttl_s
    assert result.least_loads >= 0.8 * ids * (log.seconds - sum(pauses(log))) / ttl_s
    assert result.least_loads <= result.db_loads <= ids * (floor(log.seconds / (ttl_s * (1 - JITTER))) + 1)


async def test_over_many_expiries_mode_full_keeps_nobody_waiting_and_costs_what_early_refresh_does(
    serving: Callable[..., Any],
) -> None:
    # XFetch ends a life about δ (ln rδ + 0.6) early, for a load of δ seconds and r reads a second: here a tenth of it.
    # A pause makes loads longer, and lives after it shorter, and may end a life of each key that is not loaded anew.
    ids, ttl_s = 10, 1
    with serving(mode="full", cache_ttl_s=str(ttl_s), load_delay_ms="20") as target:
        log = await load(Plan(concurrency=8, ids=ids, duration_s=6.0), target)
    result, paused = RunResult.of(log), ids * len(pauses(log))
    assert result.least_loads >= 0.8 * ids * (log.seconds - sum(pauses(log))) / ttl_s
    assert 0.9 * result.least_loads - paused <= result.db_loads <= 1.5 * result.least_loads + 2 * paused
    assert log.counted.reads_by_source["origin"] <= ids  # the first read of each id
