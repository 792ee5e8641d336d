"""Redis away under load, with writes landing meanwhile: what holds whether it is gone or hangs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.cache.freshness import LONGEST_LEAD
from app.scenarios.fleet import in_thread
from app.scenarios.load_log import LoadLog
from app.scenarios.options import Options
from app.scenarios.promise import Promise, at_most, none_of
from app.scenarios.stage import Stage
from app.scenarios.timeline import failures, p99_s, slowest_s

LOAD_DELAY_MS = 20
WRITES_A_SECOND = 1.0
STALENESS_BOUND_S = 0.25
"""How old a write may be that a read does not show: what an announcement takes, and room for a busy machine."""
RETURN_TIMEOUT_S = 10.0


def settings(options: Options) -> dict[str, str]:
    """Lives of a third of the outage, so that every value ends its life during it, three times."""
    return {"APP_CACHE_TTL_S": f"{options.duration_s / 3:.3f}", "APP_LOAD_DELAY_MS": str(LOAD_DELAY_MS)}


@dataclass(frozen=True, slots=True)
class Way:
    """One way for Redis to be away: how it is brought about and undone, and in what words."""

    broken: str
    phase: str
    mended: str
    break_: Callable[[], None]
    mend: Callable[[], None]


async def play(stage: Stage, way: Way) -> list[Promise]:
    """Calm, the outage, the return; then what was promised of each."""
    options, fleet, timeline = stage.options, stage.fleet, stage.timeline
    ttl_s, soft_s = fleet.setting("cache_ttl_s"), fleet.setting("soft_deadline_s")
    load_s = fleet.setting("load_delay_ms") / 1e3
    # So long no value ends its life, and none is loaded ahead of that, once it has been loaded.
    lead_s = LONGEST_LEAD * fleet.setting("early_refresh_beta") * load_s
    life_s = max(ttl_s / 4, ttl_s * (1 - fleet.setting("cache_ttl_jitter")) - lead_s)
    log = LoadLog(stage)
    await log.switch_on()
    async with stage.under_load():
        calm = await stage.phase("before", max(2.0, options.duration_s / 4))
        loads_before = await stage.loads()
        async with stage.writes(max(WRITES_A_SECOND, 4 / options.duration_s)) as writer:
            timeline.phase = way.phase
            broken_at = timeline.mark(way.broken)
            await in_thread(way.break_)
            await asyncio.sleep(max(0.0, broken_at + options.duration_s - time.monotonic()))
        # The last writes' announcements are under way: they are no news of the return.
        await asyncio.sleep(STALENESS_BOUND_S)
        timeline.phase = "Redis back"
        mended_at = timeline.mark(way.mended)
        await in_thread(way.mend)
        recovered_s = await stage.all_replicas('breaker_state{name="redis"}', 0.0, RETURN_TIMEOUT_S)
        loads_at_return = await stage.loads()
        await log.begin()
        recovered_at = timeline.mark("all use Redis again" if recovered_s is not None else "given up waiting")
        loads_during = loads_at_return - loads_before
        await stage.phase("after", life_s)
        loads_after = await stage.loads() - loads_at_return
        by_key = await log.loads()
        end = time.monotonic()
    before = timeline.between(*calm)
    during = timeline.between(broken_at, mended_at)
    after = timeline.between(mended_at, end)
    p99_before = p99_s(before) or 0.0
    lives = math.floor((recovered_at - broken_at) / ttl_s) + 1
    stale_after = [answer for answer in after if stage.ledger.lag_s(answer, until=mended_at - STALENESS_BOUND_S) > 0]
    late = [answer for answer in during if stage.ledger.lag_s(answer) > STALENESS_BOUND_S]
    worst_lag = max((stage.ledger.lag_s(answer) for answer in [*during, *after]), default=0.0)
    bound_ms = STALENESS_BOUND_S * 1e3
    failed = failures([*during, *after])
    slowest = slowest_s(during)
    p99_during = p99_s(during)
    return [
        none_of(
            "requests failed",
            failed.total(),
            len(during) + len(after),
            ", ".join(f"{n} × {e}" for e, n in failed.items()),
        ),
        at_most(
            f"loads until all use Redis again: {options.keys} keys × {options.replicas} processes × {lives} lives",
            options.keys * options.replicas * lives,
            loads_during,
        ),
        at_most(
            "p99 during the outage: twice that before, a load and the soft deadline",
            (2 * p99_before + load_s + soft_s) * 1e3,
            None if p99_during is None else p99_during * 1e3,
            "ms",
        ),
        at_most(
            "slowest request during the outage: a load and the soft deadline on Redis, and twice the p99 before",
            (2 * p99_before + load_s + soft_s) * 1e3,
            None if slowest is None else slowest * 1e3,
            "ms",
        ),
        none_of(
            "writes that landed meanwhile failed", len(writer.failures), stage.ledger.writes + len(writer.failures)
        ),
        none_of(
            f"answers during the outage older than a write {bound_ms:.0f} ms ago",
            len(late),
            len(during),
            f"worst {worst_lag * 1e3:.0f} ms",
        ),
        none_of("answers after the return older than the writes during the outage", len(stale_after), len(after)),
        at_most(
            "time from the return until every replica uses Redis again",
            RETURN_TIMEOUT_S * 1e3,
            None if recovered_s is None else recovered_s * 1e3,
            "ms",
        ),
        at_most(
            f"loads of any one key in the {life_s:.1f} s from then on, in which no value's life ends",
            1,
            # A log without a load, where the statistics count some, is not the log.
            max(by_key.values(), default=None if loads_after else 0),
        ),
        at_most("loads in that time: one a key", options.keys, loads_after),
    ]
