"""Redis hung under load, with writes landing meanwhile: it takes connections and answers nothing, then goes on."""

from __future__ import annotations

from app.scenarios import redis_away
from app.scenarios.promise import Promise
from app.scenarios.stage import Stage

settings = redis_away.settings


async def play(stage: Stage) -> list[Promise]:
    """SIGSTOP, and SIGCONT: what was sent meanwhile is carried out late, and what it held is as old as the outage."""
    redis = stage.fleet.redis
    way = redis_away.Way("Redis suspended", "Redis hangs", "Redis resumed", redis.suspend, redis.resume)
    return await redis_away.play(stage, way)
