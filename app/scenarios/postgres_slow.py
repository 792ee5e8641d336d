"""Loads of two seconds, and thousands of cold keys at once: PostgreSQL is not drowned, and hits do not wait."""

from __future__ import annotations

import asyncio
import time

from app.scenarios.flood import flood
from app.scenarios.options import REQUEST_TIMEOUT_S, Options
from app.scenarios.promise import Promise, at_most, none_of
from app.scenarios.stage import Stage, running
from app.scenarios.timeline import failures, p99_s

LOAD_DELAY_MS = 2_000
FIRST_COLD_KEY = 100_001
HITS_WITHIN_MS = 10.0
WATCH_S = 0.1
"""Between two looks at what is under way, which take some of the processor: a load takes twenty times as long."""
_INSERT = """
INSERT INTO templates (id, name, body)
SELECT $1 + n - 1, 'Cold ' || n, 'Nobody has read this yet.' FROM generate_series(1, $2) AS n
"""


def settings(options: Options) -> dict[str, str]:  # noqa: ARG001 - as every scenario's
    """Slow loads, and lives that end for no key meanwhile: what is warm is a hit all the time.

    The connections for the loads are open before: to open them all takes the processor from the hits.
    """
    return {
        "APP_CACHE_TTL_S": "600",
        "APP_LOAD_DELAY_MS": str(LOAD_DELAY_MS),
        "APP_DATABASE_POOL_MIN": "16",
    }


async def play(stage: Stage) -> list[Promise]:
    """Calm, then all cold keys in one instant, each asked for once, on open connections of another process."""
    options, timeline = stage.options, stage.timeline
    bulkhead = int(stage.fleet.setting("bulkhead_concurrent"))
    database = await stage.database()
    await database.execute(_INSERT, FIRST_COLD_KEY, options.cold_keys)
    database.terminate()
    watched = stage.new_count()
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(await watched.under_way() or ()))
            await asyncio.sleep(WATCH_S)

    addresses = [stage.fleet.address(number) for number in range(options.replicas)]
    keys = range(FIRST_COLD_KEY, FIRST_COLD_KEY + options.cold_keys)
    async with stage.under_load(), flood(addresses, keys, REQUEST_TIMEOUT_S) as client:
        await stage.phase("before", 2.0)
        timeline.phase = "cold keys"
        async with running(watch()):
            asked_at = timeline.mark(f"{options.cold_keys:,} cold keys")
            await client.ask()
        answered_at = timeline.mark("all of them answered")
        await stage.phase("after", max(1.0, asked_at + options.duration_s - time.monotonic()))
        end = time.monotonic()
        cold = await client.answers()
    hits = timeline.between(asked_at, answered_at)
    everybody = timeline.between(asked_at, end)
    wrong = [answer for answer in cold if answer.status not in (200, 503)]
    failed = failures(everybody)
    hit_p99 = p99_s(hits)
    together = sum(answer.is_among_all for answer in cold)
    slowest = max(answer.seconds for answer in cold)
    longest_s = stage.fleet.setting("bulkhead_timeout_s") + stage.fleet.setting("load_deadline_s")
    return [
        Promise(
            "cold keys under way at the same time",
            f"≥ {options.cold_keys // 2:,}",
            f"{together:,}",
            together >= options.cold_keys // 2,
        ),
        at_most(f"most loads under way: {bulkhead} a process", bulkhead * options.replicas, most or None),
        at_most("p99 of hits meanwhile", HITS_WITHIN_MS, None if hit_p99 is None else hit_p99 * 1e3, "ms"),
        none_of(
            "reads of warm keys failed",
            failed.total(),
            len(everybody),
            ", ".join(f"{n} × {e}" for e, n in failed.items()),
        ),
        none_of(
            "cold keys answered with neither the template nor 503",
            len(wrong),
            len(cold),
            ", ".join(sorted({answer.error for answer in wrong})),
        ),
        at_most(
            "slowest answer to a cold key: the longest wait for a turn and the load's deadline",
            longest_s * 1e3,
            slowest * 1e3,
            "ms",
        ),
    ]
