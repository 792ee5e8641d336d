"""The load test over gRPC: the same plan, the same log, the same figures."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict

import pytest

from app.loadtest.errors import TargetError
from app.loadtest.plan import Plan
from app.loadtest.progress import Silent
from app.loadtest.result import RunResult, complaints
from app.loadtest.runner import run
from app.loadtest.target import Given, Target, find_target
from tests.loadtest.fake_app import FakeApp
from tests.loadtest.fake_grpc import over_grpc
from tests.loadtest.test_target import STACK

SMALL = Plan(concurrency=20, waves=3, ids=10, spread=100, keep_caches=True)


async def test_the_same_plan_gives_the_same_requests_and_figures_as_over_http() -> None:
    async with FakeApp() as app:
        http = await run(SMALL, app.target, Silent())
    async with FakeApp() as app, over_grpc(app) as (target, service):
        log = await run(SMALL, target, Silent())
        assert service.calls == SMALL.requests == 160
    assert Counter((s.phase, s.key) for s in log.samples) == Counter((s.phase, s.key) for s in http.samples)
    result, by_http = RunResult.of(log), RunResult.of(http)
    assert asdict(result).keys() == asdict(by_http).keys()
    assert result.db_loads == result.least_loads == by_http.least_loads == 10
    assert (result.errors, result.hit_ratio, complaints(log)) == (0, 150 / 160, [])
    assert log.url == f"gRPC at {target.grpc_target}"
    assert all(s.end >= s.start for s in log.samples)


async def test_every_reader_has_a_connection_of_its_own() -> None:
    async with FakeApp() as app, over_grpc(app) as (target, service):
        await run(SMALL, target, Silent())
        assert len(service.peers) == SMALL.concurrency


async def test_the_reads_of_a_wave_are_all_on_their_way_before_the_first_is_answered() -> None:
    async with FakeApp(crowd=50) as app, over_grpc(app) as (target, _), asyncio.timeout(60):
        log = await run(Plan(concurrency=50, waves=2, ids=2, spread=0, keep_caches=True), target, Silent())
    assert RunResult.of(log).errors == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("refuse", "status RESOURCE_EXHAUSTED"),
        ("unavailable", "status UNAVAILABLE"),
        ("hang", "status DEADLINE_EXCEEDED"),
        ("wrong body", "another template's body"),
        ("no source", "no known source"),
    ],
)
async def test_what_goes_wrong_is_an_error_by_its_status_and_not_tried_again(fault: str, words: str) -> None:
    timeout_s = 2 if fault == "hang" else 10
    plan = Plan(concurrency=4, waves=2, ids=2, spread=0, timeout_s=timeout_s, keep_caches=True)
    async with FakeApp(faults={3: fault, 4: fault}) as app, over_grpc(app) as (target, service):
        log = await run(plan, target, Silent())
        assert service.calls == 8
    assert Counter(s.error for s in log.samples) == {"": 6, words: 2}
    assert complaints(log) == [f"2 of 8 requests failed: 2 × {words}"]


async def test_a_target_that_is_not_there_is_said_before_anything_is_sent() -> None:
    async with FakeApp() as app:
        async with over_grpc(app) as (target, _):
            pass
        with pytest.raises(TargetError, match=f"cannot open 20 connections to gRPC at {target.grpc_target}: "):
            await run(SMALL, target, Silent())
        assert app.requests == 0


def test_the_target_is_the_given_one_else_the_running_stacks_else_beside_http() -> None:
    stack = {**STACK, "grpc_target": "127.0.0.1:9004"}
    assert find_target(Given(), stack).grpc_target is None
    assert find_target(Given(grpc="loom:9999"), stack).grpc_target == "loom:9999"
    assert find_target(Given(grpc=""), stack).grpc_target == "127.0.0.1:9004"
    assert find_target(Given(grpc=""), None).grpc_target == "127.0.0.1:50051"
    assert find_target(Given(url="http://h:80", grpc=""), stack).grpc_target == "h:50051"
    assert find_target(Given(url="http://[::1]:80", grpc=""), None).grpc_target == "[::1]:50051"
    with pytest.raises(TargetError, match="--grpc: the target must be HOST:PORT"):
        Target(grpc_target="localhost")
