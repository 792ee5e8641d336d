"""The remote tier on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.cache.remote import RemoteCache, counts_as_failure
from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.lab.simulation.recorded_events import RecordedEvents


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass(frozen=True)
class RemoteRig:
    """A remote tier, what it told, and a plain client of the same server for looking and meddling."""

    remote: RemoteCache
    events: RecordedEvents
    breaker: CircuitBreaker
    client: Redis


OpenRemote = Callable[..., RemoteRig]


@pytest.fixture
async def open_remote() -> AsyncIterator[OpenRemote]:
    """Opens remote tiers wired as the service's is, and closes them after the test."""
    async with AsyncExitStack() as closing:

        def open_(
            url: str,
            *,
            prefix: str = "t",
            protocol: int = 3,
            timeout_s: float = 0.25,
            pool_max: int = 8,
            failures: int = 5,
            open_s: float = 60.0,
            lease_s: float = 10.0,
            floor_s: float = 60.0,
            kept_past_expiry_s: float = 0.0,
            on_change: Callable[[BreakerState, BreakerState], None] = lambda _old, _new: None,
        ) -> RemoteRig:
            pool = BlockingConnectionPool.from_url(
                url,
                protocol=protocol,
                max_connections=pool_max,
                timeout=None,
                socket_timeout=None,
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
            )
            events = RecordedEvents()
            breaker = CircuitBreaker(failures=failures, open_s=open_s, counts=counts_as_failure, on_change=on_change)
            remote = RemoteCache(
                Redis.from_pool(pool),
                prefix=prefix,
                breaker=breaker,
                timeout_s=timeout_s,
                events=events,
                lease_s=lease_s,
                floor_s=floor_s,
                kept_past_expiry_s=kept_past_expiry_s,
            )
            client = Redis.from_url(url)
            closing.push_async_callback(remote.aclose)
            closing.push_async_callback(client.aclose)
            return RemoteRig(remote, events, breaker, client)

        yield open_


@pytest.fixture
def rig(open_remote: OpenRemote, redis_url: str) -> RemoteRig:
    """On the shared server, which is empty; with a timeout that a busy machine does not reach."""
    return open_remote(redis_url, timeout_s=5.0)
