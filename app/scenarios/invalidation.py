"""Changes made behind the app's back, and the connections that announce changes cut while more of them land."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import asyncpg

from app.loadtest.latency import percentile
from app.loadtest.open_loop import Endpoint
from app.scenarios.errors import ScenarioError
from app.scenarios.fleet import APP_ROLE
from app.scenarios.options import Options
from app.scenarios.promise import Promise, at_most, none_of
from app.scenarios.stage import Stage
from app.scenarios.timeline import failures

UPDATES_A_SECOND = 20
SEEN_P50_MS, SEEN_P99_MS, SEEN_TIMEOUT_S = 5.0, 25.0, 5.0
CUT_S = 5.0
WRITES_A_SECOND = 4.0
BEYOND_GRACE_S = 0.25
"""For the announcement or the load that ends the doubt, on a busy machine."""
CAUGHT_UP_TIMEOUT_S, QUIET_S = 5.0, 2.0
FEED = "template-changes"
"""What the app calls its connections for announcements."""

_UPDATE = "UPDATE templates SET body = $2 WHERE id = $1 RETURNING version"
_CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"


def settings(options: Options) -> dict[str, str]:  # noqa: ARG001 - as every scenario's
    """Lives that end for no key meanwhile, and all connections that loads need open from the start."""
    return {
        "APP_CACHE_TTL_S": "600",
        "APP_BULKHEAD_CONCURRENT": "8",
        "APP_DATABASE_POOL_MIN": "10",
        "APP_DATABASE_POOL_MAX": "10",
    }


async def play(stage: Stage) -> list[Promise]:
    """Updates by SQL, each timed to the first answer with it from every replica; then the cut, and the catch-up."""
    options, timeline, ledger = stage.options, stage.timeline, stage.ledger
    grace_s = stage.fleet.setting("coherence_grace_s")
    cut_s = max(2 * grace_s, min(CUT_S, options.duration_s))
    async with stage.under_load():
        await stage.phase("before", 1.0)
        database = await stage.database()
        try:
            timeline.phase = "updates by SQL"
            seen = await _timed_updates(stage, database)
            timeline.phase = "LISTEN cut"
            async with stage.writes(WRITES_A_SECOND, stage.keys[: max(1, options.keys // 5)]):
                cut_at = timeline.mark("LISTEN cut")
                await _cut(database)
                await asyncio.sleep(cut_s)
            timeline.phase = "after"
            timeline.mark("LISTEN allowed")
            await database.execute(f"ALTER ROLE {APP_ROLE} CONNECTION LIMIT -1")
            caught_up_s = await stage.all_replicas("cache_listen_up", 1.0, CAUGHT_UP_TIMEOUT_S)
            caught_up_at = timeline.mark("caught up")
            loads = await stage.loads()
            await stage.phase("after", QUIET_S)
            loads = await stage.loads() - loads
        finally:
            database.terminate()
        end = time.monotonic()
    ordered = sorted(seen)
    answers = timeline.between(cut_at, end)
    bound_s = grace_s + BEYOND_GRACE_S
    late = [answer for answer in answers if ledger.lag_s(answer) > bound_s]
    worst_s = max(map(ledger.lag_s, answers), default=0.0)
    old = [answer for answer in answers if answer.due > caught_up_at and ledger.lag_s(answer) > 0]
    changed = ledger.keys_written(cut_at, caught_up_at)
    failed = failures(answers)
    return [
        at_most(f"UPDATE seen by every replica, p50 of {len(seen)}", SEEN_P50_MS, percentile(ordered, 0.5) * 1e3, "ms"),
        at_most(
            f"UPDATE seen by every replica, p99 of {len(seen)}", SEEN_P99_MS, percentile(ordered, 0.99) * 1e3, "ms"
        ),
        at_most(
            f"oldest answer, LISTEN cut for {cut_s:g} s: the coherence grace, and {BEYOND_GRACE_S * 1e3:.0f} ms",
            bound_s * 1e3,
            worst_s * 1e3 if ledger.writes else None,
            "ms",
        ),
        none_of("answers older than that", len(late), len(answers)),
        none_of("requests failed", failed.total(), len(answers), ", ".join(f"{n} × {e}" for e, n in failed.items())),
        at_most(
            "time from the end of the cut until every replica has caught up",
            CAUGHT_UP_TIMEOUT_S * 1e3,
            None if caught_up_s is None else caught_up_s * 1e3,
            "ms",
        ),
        none_of("answers after that older than the writes during the cut", len(old), len(answers)),
        at_most("loads after that: the keys that were changed", len(changed), loads),
    ]


async def _timed_updates(stage: Stage, database: asyncpg.Connection) -> list[float]:
    """For each update, seconds from its acknowledgement until every replica has answered with it."""
    pick = random.Random(1)
    seen = []
    for number in range(round(stage.options.duration_s * UPDATES_A_SECOND)):
        key = pick.choice(stage.keys)
        version = await database.fetchval(_UPDATE, key, f"Updated by SQL, number {number}.")
        at = time.monotonic()
        stage.ledger.acknowledged(key, version, at)
        ends = await asyncio.gather(*(_first_with(endpoint, key, version) for endpoint in stage.endpoints))
        seen.append(max(ends) - at)
        await asyncio.sleep(max(0.0, at + 1 / UPDATES_A_SECOND - time.monotonic()))
    return seen


async def _first_with(endpoint: Endpoint, key: int, version: int) -> float:
    """When the replica first answered with this version, asked without a pause."""
    deadline = time.monotonic() + SEEN_TIMEOUT_S
    while True:
        answer = await endpoint.get(key)
        if answer.version >= version:
            return answer.end
        if answer.end > deadline:
            raise ScenarioError(f"replica {endpoint.number} did not show an update within {SEEN_TIMEOUT_S:g} s")


async def _cut(database: asyncpg.Connection) -> None:
    """End the connections that listen, and let the app open no others: those that it has go on."""
    await database.execute(f"ALTER ROLE {APP_ROLE} CONNECTION LIMIT 0")
    cut: Sequence[int] = [await database.fetchval(_CUT, FEED)]
    if not cut[0]:
        raise ScenarioError("no connection of the app listens to changes: there is nothing to cut")
