"""Redis killed under load, with writes landing meanwhile, and back again, empty."""

from __future__ import annotations

from app.scenarios import redis_away
from app.scenarios.promise import Promise
from app.scenarios.stage import Stage

settings = redis_away.settings


async def play(stage: Stage) -> list[Promise]:
    """SIGKILL, and a start on the same port, without the data."""
    redis = stage.fleet.redis
    way = redis_away.Way("Redis killed", "Redis gone", "Redis started", redis.kill, redis.start)
    return await redis_away.play(stage, way)
