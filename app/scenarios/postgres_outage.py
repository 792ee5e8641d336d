"""PostgreSQL killed under load: what was read before goes on being answered, what was not is refused at once."""

from __future__ import annotations

import asyncio
import itertools
import time

from app.loadtest.open_loop import Answer
from app.scenarios.fleet import in_thread
from app.scenarios.options import Options
from app.scenarios.promise import Promise, at_most, none_of
from app.scenarios.stage import Stage, running
from app.scenarios.timeline import failures, p99_s

LOAD_DELAY_MS = 20
COLD_A_SECOND = 50.0
FIRST_COLD_KEY, LAST_COLD_KEY = 501, 1_000
REFUSED_WITHIN_MS = 10.0
BREAKER_TIMEOUT_S, RETURN_TIMEOUT_S = 10.0, 5.0
SETTLE_S = 0.1
"""Room for a request that was under way when a value's life ended."""


def settings(options: Options) -> dict[str, str]:
    """Lives of a sixth of the outage: for most of it every value is past its life."""
    return {"APP_CACHE_TTL_S": f"{max(0.5, options.duration_s / 6):.3f}", "APP_LOAD_DELAY_MS": str(LOAD_DELAY_MS)}


async def play(stage: Stage) -> list[Promise]:
    """Calm, the outage with reads of cold keys as soon as the breakers are open, the return."""
    options, timeline, postgres = stage.options, stage.timeline, stage.fleet.postgres
    ttl_s = stage.fleet.setting("cache_ttl_s")
    cold: list[Answer] = []
    async with stage.under_load():
        await stage.phase("before", max(2.0, options.duration_s / 6))
        timeline.phase = "PostgreSQL gone"
        broken_at = timeline.mark("PostgreSQL killed")
        await in_thread(postgres.kill)
        gone_at = time.monotonic()  # until then loads may have succeeded
        opened_s = await _breakers_open(stage)
        if opened_s is not None:
            timeline.mark("breakers open")
            async with running(_ask_cold(stage, cold)):
                await asyncio.sleep(max(0.0, broken_at + options.duration_s - time.monotonic()))
        refused = list(cold)
        timeline.phase = "after"
        mended_at = timeline.mark("PostgreSQL started")
        await in_thread(postgres.start)
        recovered_s = await _answers_cold(stage)
        if recovered_s is not None:
            timeline.mark("cold keys answered")
        await stage.phase("after", max(1.0, ttl_s / 2))
        end = time.monotonic()
    during = timeline.between(broken_at, mended_at)
    warm = timeline.between(broken_at, end)
    past_life = [a for a in during if a.sent >= gone_at + ttl_s + SETTLE_S and a.end < mended_at and not a.error]
    unmarked = [answer for answer in past_life if answer.source != "stale"]
    failed = failures(warm)
    wrong = [answer for answer in refused if answer.status != 503]
    slow = p99_s([answer._replace(error="") for answer in refused])
    return [
        none_of(
            "reads of warm keys failed", failed.total(), len(warm), ", ".join(f"{n} × {e}" for e, n in failed.items())
        ),
        none_of("answers past every value's life that were not marked stale", len(unmarked), len(past_life)),
        at_most(
            "time until the breakers are open",
            BREAKER_TIMEOUT_S * 1e3,
            None if opened_s is None else opened_s * 1e3,
            "ms",
        ),
        none_of("cold keys answered with something else than 503 while they are", len(wrong), len(refused)),
        at_most("p99 of those refusals", REFUSED_WITHIN_MS, None if slow is None else slow * 1e3, "ms"),
        at_most(
            "time from the return until every replica answers cold keys",
            RETURN_TIMEOUT_S * 1e3,
            None if recovered_s is None else recovered_s * 1e3,
            "ms",
        ),
    ]


async def _breakers_open(stage: Stage) -> float | None:
    """Read cold keys until every replica's breaker has opened; how long it took, `None` where it took too long."""
    cold: list[Answer] = []
    async with running(_ask_cold(stage, cold)):
        return await stage.all_replicas('breaker_state{name="postgres"}', 2.0, BREAKER_TIMEOUT_S)


async def _ask_cold(stage: Stage, into: list[Answer]) -> None:
    keys, endpoints = itertools.cycle(range(FIRST_COLD_KEY, LAST_COLD_KEY)), itertools.cycle(stage.endpoints)
    while True:
        into.append(await next(endpoints).get(next(keys)))
        await asyncio.sleep(1 / COLD_A_SECOND)


async def _answers_cold(stage: Stage) -> float | None:
    """How long it takes until each replica has answered a key that no cache holds; `None` where it takes too long."""
    began = time.monotonic()
    for number, endpoint in enumerate(stage.endpoints):
        while (await endpoint.get(LAST_COLD_KEY - number)).error:
            if time.monotonic() - began > RETURN_TIMEOUT_S:
                return None
            await asyncio.sleep(0.05)
    return time.monotonic() - began
