"""A fleet of eight on the session's servers, in a database of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from redis.asyncio import Redis

from app.embedded.stack import EmbeddedStack
from tests.fleet.database import FleetDatabase
from tests.fleet.fleet import Fleet

SIZE = 8
LEASE_S = 5.0
PREFIX = "fleet"
SEEDED = 1_000
"""Ids that exist."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def fleet_settings(stack: EmbeddedStack, fresh_database: Callable[[], str]) -> dict[str, Any]:
    """For mode `full`, with a lease short enough to wait for, and lives that end in no test.

    A server or a process that is kept from running for a while is not what these tests are about, but for those that
    give another timeout: it makes nobody give up.
    """
    return {
        "mode": "full",
        "database_url": fresh_database(),
        "redis_url": stack.redis.url(),
        "cache_key_prefix": PREFIX,
        "cache_ttl_s": 3_600,
        "lease_s": LEASE_S,
        "load_delay_ms": 0,
        "redis_timeout_s": 5,
        "soft_deadline_s": 30,
        "load_deadline_s": 60,
        "bulkhead_timeout_s": 30,
        "singleflight_wait_timeout_s": 30,
        "database_connect_timeout_s": 30,
        "database_start_timeout_s": 60,
        "database_acquire_timeout_s": 30,
        "database_statement_timeout_s": 60,
    }


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet(fleet_settings: dict[str, Any]) -> AsyncIterator[Fleet]:
    """Eight workers. A test that kills one starts it again."""
    async with Fleet(SIZE, fleet_settings) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(stack: EmbeddedStack, fleet_settings: dict[str, Any]) -> AsyncIterator[FleetDatabase]:
    url = stack.postgres.url("postgres", fleet_settings["database_url"].rpartition("/")[2])
    async with FleetDatabase.connected(url) as connected:
        yield connected


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis(stack: EmbeddedStack) -> AsyncIterator[Redis]:
    """A plain client of the fleet's Redis, for looking."""
    client = Redis.from_url(stack.redis.url())
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def cold_keys() -> Iterator[int]:
    """Ids that no test has read."""
    return iter(range(1, SEEDED + 1))
