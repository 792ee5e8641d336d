"""The replica that loads a cold key for the whole fleet, killed in mid-load: another one takes its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from app.loadtest.open_loop import Answer
from app.scenarios.errors import ScenarioError
from app.scenarios.fleet import in_thread
from app.scenarios.options import Options
from app.scenarios.promise import Promise, at_most, none_of
from app.scenarios.stage import Stage, running, until

LOAD_DELAY_MS, LOAD_DEADLINE_S, LEASE_S = 200, 0.8, 1.6
COMPOSE_LOAD_DELAY_MS, COMPOSE_LOAD_DEADLINE_S, COMPOSE_LEASE_S = 800, 1.6, 3.2
"""Longer, as the docker command takes a while to kill, and that must fall into the load."""
LATE_MS = 100.0
"""How long after the lease's end and one more load everybody has an answer."""
CALLERS = 20
"""Of the cold key, at each other replica."""
SECONDS_A_ROUND = 3.5
FIRST_COLD_KEY = 601
SEEN_TIMEOUT_S = 2.0
WATCH_S = 0.01


def settings(options: Options) -> dict[str, str]:
    """A short lease, and lives that end for no key meanwhile: every load that is counted is one of the cold keys'."""
    return {
        "APP_CACHE_TTL_S": "600",
        "APP_LOAD_DELAY_MS": str(COMPOSE_LOAD_DELAY_MS if options.compose else LOAD_DELAY_MS),
        "APP_LOAD_DEADLINE_S": str(COMPOSE_LOAD_DEADLINE_S if options.compose else LOAD_DEADLINE_S),
        "APP_LEASE_S": str(COMPOSE_LEASE_S if options.compose else LEASE_S),
    }


async def play(stage: Stage) -> list[Promise]:
    """Round by round: a cold key, its loader killed, everybody's answers; then the replica is started again."""
    if stage.options.replicas < 2:
        raise ScenarioError("replica-crash needs --replicas 2 at least: one to be killed, and one to take its place")
    rounds = max(1, round(stage.options.duration_s / SECONDS_A_ROUND))
    outcomes: list[tuple[list[Answer], int, float]] = []
    lost: list[Answer] = []
    async with stage.under_load():
        await stage.phase("before", 2.0)
        began = time.monotonic()
        for number in range(rounds):
            holder = number % stage.options.replicas
            stage.timeline.phase = "replica killed"
            outcomes.append(await _crash(stage, FIRST_COLD_KEY + number, holder, lost))
            stage.timeline.phase = "replica restarts"
            await in_thread(lambda holder=holder: stage.fleet.restart([holder]))  # type: ignore[misc]
            stage.load.resume(holder)
            stage.timeline.mark(f"replica {holder} back")
        await stage.phase("after", 1.0)
        end = time.monotonic()
    callers = [answer for answers, _, _ in outcomes for answer in answers]
    others = [answer for answer in stage.timeline.between(began, end) if answer not in lost]
    failed = [answer for answer in [*callers, *others] if answer.error]
    answered_ms = stage.fleet.setting("lease_s") * 1e3 + stage.fleet.setting("load_delay_ms") + LATE_MS
    return [
        at_most(
            f"loads of a cold key whose loader is killed, most of {rounds} rounds", 2, max(n for _, n, _ in outcomes)
        ),
        none_of(
            "requests to other replicas failed",
            len(failed),
            len(callers) + len(others),
            ", ".join(sorted({answer.error for answer in failed})),
        ),
        at_most(
            f"last of {CALLERS} callers at each other replica answered: lease, load and {LATE_MS:.0f} ms, worst round",
            answered_ms,
            max(seconds for _, _, seconds in outcomes) * 1e3,
            "ms",
        ),
    ]


async def _crash(stage: Stage, key: int, holder: int, lost: list[Answer]) -> tuple[list[Answer], int, float]:
    """The other replicas' answers, the loads there were, and the time from the first request to the last answer.

    What the killed replica owed goes into `lost`.
    """
    watched = stage.new_count()
    begun: set[tuple[int, datetime]] = set()

    async def watch() -> None:
        # A load whose client has died is not among those that PostgreSQL counts as ended.
        while True:
            begun.update(await watched.under_way() or ())
            await asyncio.sleep(WATCH_S)

    async def is_loading() -> bool:
        return bool(begun)

    async with running(watch()):
        answers, seconds = await _answers(stage, key, holder, lost, is_loading)
    watched.close()
    return answers, len(begun), seconds


async def _answers(
    stage: Stage, key: int, holder: int, lost: list[Answer], is_loading: Callable[[], Awaitable[bool]]
) -> tuple[list[Answer], float]:
    asked_at = time.monotonic()
    first = asyncio.create_task(stage.endpoints[holder].get(key))
    try:
        # Nobody else has been asked, so the holder of the lease is known.
        if await until(is_loading, SEEN_TIMEOUT_S, 0.005) is None:
            raise ScenarioError("PostgreSQL was not seen to load a cold key")
        others: Sequence[asyncio.Task[Answer]] = [
            asyncio.create_task(endpoint.get(key))
            for endpoint in stage.endpoints
            if endpoint.number != holder
            for _ in range(CALLERS)
        ]
        stage.load.rest(holder)
        killed_at = stage.timeline.mark(f"replica {holder} killed")
        seen = len(stage.timeline.answers)
        await in_thread(lambda: stage.fleet.kill(holder))
        answers = list(await asyncio.gather(*others))
    finally:
        lost_first = await first
    if not lost_first.error:
        raise ScenarioError("the load ended before its replica was killed: this machine is too busy to tell")
    lost += [a for a in stage.timeline.answers[seen:] if a.server == holder and a.sent <= killed_at + 1]
    return answers, max(answer.end for answer in answers) - asked_at
