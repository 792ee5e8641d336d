"""All replicas killed at once under load and started again: Redis answers what none of them remembers."""

from __future__ import annotations

import time

from app.scenarios.fleet import in_thread
from app.scenarios.options import Options
from app.scenarios.promise import Promise, exactly, none_of
from app.scenarios.stage import Stage
from app.scenarios.timeline import failures

LOAD_DELAY_MS = 50


def settings(options: Options) -> dict[str, str]:  # noqa: ARG001 - as every scenario's
    """Lives that end for no key meanwhile: every load that is counted was caused by the restart."""
    return {"APP_CACHE_TTL_S": "600", "APP_LOAD_DELAY_MS": str(LOAD_DELAY_MS)}


async def play(stage: Stage) -> list[Promise]:
    """Calm, the restart, and the load that meets processes with empty memories."""
    timeline, fleet = stage.timeline, stage.fleet
    everyone = range(stage.options.replicas)
    async with stage.under_load():
        await stage.phase("before", 2.0)
        loads = await stage.loads()
        timeline.phase = "restart"
        killed_at = timeline.mark("all killed")
        await in_thread(lambda: fleet.restart(everyone))
        serving_at = timeline.mark("all serving")
        await stage.phase("after", stage.options.duration_s)
        loads = await stage.loads() - loads
        end = time.monotonic()
    answers = timeline.between(killed_at, end)
    after = timeline.between(serving_at, end)
    failed = failures(after)
    # What was sent to a process that had been killed, or not been started yet, is no answer of the service.
    wrong = [answer for answer in answers if answer.status not in (0, 200)]
    from_redis = sum(answer.source == "l2" for answer in answers)
    return [
        exactly(f"loads after all {stage.options.replicas} replicas were restarted", 0, loads),
        none_of("answers with an error status", len(wrong), len(answers)),
        none_of(
            "requests failed once all serve again",
            failed.total(),
            len(after),
            ", ".join(f"{n} × {e}" for e, n in failed.items()),
        ),
        Promise("answers that Redis gave instead", "> 0", f"{from_redis:,}", from_redis > 0),
    ]
