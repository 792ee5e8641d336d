from __future__ import annotations

import asyncio
import resource
from collections import Counter

import pytest

from app.loadtest import runner
from app.loadtest.errors import TargetError
from app.loadtest.http import Connection, Response
from app.loadtest.plan import Plan
from app.loadtest.progress import Silent
from app.loadtest.result import RunResult, complaints
from app.loadtest.runner import run
from tests.loadtest.fake_app import FakeApp

SMALL = Plan(concurrency=20, waves=3, ids=10, spread=100, keep_caches=True)


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []
        self.units = 0.0

    def begin(self, what: str, total: float) -> None:
        self.parts.append((what, total))

    def advance(self, units: float) -> None:
        self.units += units


async def test_every_request_of_the_plan_is_sent_and_logged() -> None:
    async with FakeApp() as app:
        told = Told()
        log = await run(SMALL, app.target, told)
    assert len(log.samples) == app.requests == SMALL.requests == 160
    assert Counter(s.phase for s in log.samples) == {1: 20, 2: 20, 3: 20, 0: 100}
    assert {s.key for s in log.samples if s.phase == 2} == {2}
    assert all(s.end >= s.start for s in log.samples)
    assert told.units == sum(total for _, total in told.parts) == 103
    assert (log.mode, log.version, log.ttl_s) == ("singleflight", "9.9", 30.0)


async def test_loads_are_the_rise_of_the_apps_own_count_and_equal_the_least_for_a_perfect_app() -> None:
    async with FakeApp() as app:
        log = await run(SMALL, app.target, Silent())
        result = RunResult.of(log)
        assert result.db_loads == result.least_loads == app.loads == 10
        assert result.shared == app.counts["shared"] > 0
    assert result.hit_ratio == 150 / 160
    assert complaints(log) == []


async def test_an_app_that_does_not_coalesce_loads_more_than_the_least() -> None:
    async with FakeApp(coalesce=False) as app:
        result = RunResult.of(await run(SMALL, app.target, Silent()))
    assert result.db_loads >= 60 > result.least_loads == 10


async def test_the_requests_of_a_wave_are_all_on_their_way_before_the_first_is_answered() -> None:
    async with FakeApp(crowd=50) as app, asyncio.timeout(10):
        # The app answers none of a wave until all 50 have come; sent one by one they would wait for ever.
        log = await run(Plan(concurrency=50, waves=2, ids=2, spread=0, keep_caches=True), app.target, Silent())
    assert RunResult.of(log).errors == 0


async def test_all_connections_are_open_before_the_first_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    really_open, really_get = Connection.open, Connection.get

    async def opened(self: Connection) -> None:
        await really_open(self)
        events.append("open")

    async def get(self: Connection, path: bytes) -> Response:
        if path != b"/metrics":
            events.append("get")
        return await really_get(self, path)

    monkeypatch.setattr(Connection, "open", opened)
    monkeypatch.setattr(Connection, "get", get)
    async with FakeApp() as app:
        await run(SMALL, app.target, Silent())
        kept = SMALL.concurrency + app.scrapes
        assert app.connections == kept  # none was opened later
    assert events.index("get") == SMALL.concurrency


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("refuse", "status 503"),
        ("wrong body", "another template's body"),
        ("no source", "no known X-Cache"),
        ("cut", "connection cut in mid-response"),
        ("garbage", "malformed response"),
        ("hang", "timeout"),
    ],
)
async def test_what_goes_wrong_is_an_error_by_its_kind_and_no_good_answer(fault: str, words: str) -> None:
    timeout_s = 1 if fault == "hang" else 10
    plan = Plan(concurrency=4, waves=2, ids=2, spread=0, timeout_s=timeout_s, keep_caches=True)
    async with FakeApp(faults={3: fault, 6: fault}) as app:
        log = await run(plan, app.target, Silent())
    assert Counter(s.error for s in log.samples) == {"": 6, words: 2}
    assert RunResult.of(log).errors == 2
    assert complaints(log) == [f"2 of 8 requests failed: 2 × {words}"]


async def test_a_sustained_run_reads_for_its_seconds_and_no_longer() -> None:
    seconds = 1.0
    async with FakeApp() as app:
        log = await run(Plan(concurrency=3, ids=5, duration_s=seconds, keep_caches=True), app.target, Silent())
    assert {s.key for s in log.samples} == set(range(1, 6))
    began = min(s.start for s in log.samples)
    assert seconds / 2 < log.seconds < 60
    assert max(s.start for s in log.samples) <= began + seconds


async def test_an_app_that_is_not_there_is_said_with_its_address_and_the_way_out() -> None:
    async with FakeApp() as app:
        target = app.target
    with pytest.raises(TargetError, match=rf"no app answers at {target.url} \(connection refused\).*--url"):
        await run(SMALL, target, Silent())


async def test_something_else_than_the_app_is_not_load_tested() -> None:
    async with FakeApp(metrics="up 1\n") as app:
        with pytest.raises(TargetError, match="has no db_hits_total: is this the app"):
            await run(SMALL, app.target, Silent())
        assert app.requests == 0
    async with FakeApp(metrics="<html>\n") as app:
        with pytest.raises(TargetError, match="is malformed"):
            await run(SMALL, app.target, Silent())


async def test_counters_that_fall_betray_a_restart() -> None:
    async with FakeApp() as app:
        app.loads = 50
        app.restart_after = 30
        with pytest.raises(TargetError, match="did the app restart"):
            await run(SMALL, app.target, Silent())


async def test_connections_beyond_the_open_files_allowed_are_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    async with FakeApp() as app:
        with pytest.raises(TargetError, match="ulimit -n"):
            await run(Plan(keep_caches=True), app.target, Silent())
        assert app.requests == 0


async def test_a_low_soft_limit_on_open_files_is_raised_to_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    async with FakeApp() as app:
        await run(SMALL, app.target, Silent())
    assert raised == [(SMALL.concurrency + runner.SPARE_FILES, 4096)]
