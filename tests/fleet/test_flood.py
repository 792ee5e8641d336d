"""Very many cold keys at once in one process, which has enough to do then, and a Redis that is well."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from app.bootstrap.runtime import running
from app.domain.errors import OverloadedError, TemplateNotFoundError
from app.embedded.stack import EmbeddedStack
from app.settings import Mode, Settings

KEYS = 4_000


@pytest.fixture
def frozen() -> Iterator[None]:
    """No collection of what was made until now, as in a process that serves."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def test_a_flood_of_cold_keys_is_not_blamed_on_redis_and_gives_its_leases_back(
    frozen: None, stack: EmbeddedStack, fresh_database: Callable[[], str]
) -> None:
    # Were its operations all begun at once, most would run into their timeout by this process' own slowness, the
    # breaker would open, and each process load for itself; and a lease that is not given back bars its key for seconds.
    prefix = "flood"
    values: dict[str, Any] = {
        "mode": Mode.FULL,
        "database_url": fresh_database(),
        "redis_url": stack.redis.url(),
        "cache_key_prefix": prefix,
        "load_delay_ms": 1_000,
        "redis_timeout_s": 0.5,
        "lease_s": 60,
        "singleflight_wait_timeout_s": 60,
    }
    settings = Settings(**values)
    async with running(settings) as runtime, Redis.from_url(settings.redis_url) as client:

        async def read(key: int) -> str:
            try:
                await runtime.service.read(key)
            except TemplateNotFoundError:
                return "read"
            except OverloadedError:
                return "refused"
            return "read"

        states: list[float | None] = []
        sample = runtime.metrics.registry.get_sample_value

        async def look() -> None:
            while True:
                states.append(sample("breaker_state", {"name": "redis"}))
                await asyncio.sleep(0.01)

        looking = asyncio.create_task(look())
        answers = Counter(await asyncio.gather(*(read(key) for key in range(1, KEYS + 1))))
        looking.cancel()
        assert answers["read"] > 0
        assert set(states) <= {0.0, None}
        # A busy machine may still make a few of thousands run into their timeout.
        async with asyncio.timeout(20):
            while len([name async for name in client.scan_iter(f"{prefix}:*:lease", 1_000)]) > KEYS / 100:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
