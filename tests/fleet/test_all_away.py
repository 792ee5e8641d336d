"""A write that lands while no replica runs, so that nobody hears of it."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from app.bootstrap.runtime import running
from app.embedded.stack import EmbeddedStack
from app.settings import Mode, Settings


async def test_the_first_replica_to_come_back_serves_no_value_from_before_the_write(
    stack: EmbeddedStack, fresh_database: Callable[[], str]
) -> None:
    url = fresh_database()
    settings = Settings.model_validate(
        {
            "mode": Mode.FULL,
            "database_url": url,
            "redis_url": stack.redis.url(),
            "cache_key_prefix": "away",
            "grpc_port": 0,
            "redis_timeout_s": 5,
            "database_connect_timeout_s": 30,
            "database_start_timeout_s": 60,
        }
    )
    async with running(settings) as first:
        assert (await first.service.get(1)).version == 1
        assert (await first.service.read(2)).source == "origin"
    psql = await asyncpg.connect(url)
    try:
        await psql.execute("UPDATE templates SET name = 'written while all were away' WHERE id = 1")
    finally:
        await psql.close()
    async with running(settings) as again:
        reading = await again.service.read(1)
        assert reading.version == 2
        assert (await again.service.read(2)).source == "l2", "what did not change is not loaded again"
