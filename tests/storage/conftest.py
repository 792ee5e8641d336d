"""A migrated database on a real server, and pools on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import asyncpg
import pytest
import uvloop

from app.embedded.stack import EmbeddedStack
from app.storage.changes import ChangeFeed
from app.storage.postgres import Connection, Database
from app.storage.templates import TemplateRepository
from tests.storage.recording_listener import RecordingListener

POLL_S = 0.005
OpenDatabase: TypeAlias = Callable[..., Awaitable[Database]]
MakeFeed: TypeAlias = Callable[..., ChangeFeed]

SETTINGS: Mapping[str, Any] = {
    "pool_min": 1,
    "pool_max": 10,
    "connect_timeout_s": 10.0,
    "acquire_timeout_s": 60.0,
    "statement_timeout_s": 60.0,
    "start_timeout_s": 60.0,
    "application_name": "tests",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The service runs on uvloop; cancellation and lost connections must be right on asyncio's own loop too."""
    if item.path.stem in ("test_cancellation", "test_outage"):
        return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def url(database_url: str) -> str:
    """A database with all migrations applied, for the tests of one module; the role is `app`."""
    return database_url


@pytest.fixture
async def open_database() -> AsyncIterator[OpenDatabase]:
    """Opens pools, with `SETTINGS` but for what is given, and closes them after the test."""
    async with AsyncExitStack() as closing:

        async def open_(url: str, **settings: Any) -> Database:
            database = await Database.connect(url, **{**SETTINGS, **settings})
            closing.push_async_callback(database.close, 2.0)
            return database

        yield open_


@pytest.fixture
async def database(url: str, open_database: OpenDatabase) -> Database:
    return await open_database(url)


@pytest.fixture
async def repository(database: Database) -> TemplateRepository:
    return TemplateRepository(database)


@pytest.fixture
async def admin(stack: EmbeddedStack, url: str) -> AsyncIterator[Connection]:
    """The superuser, on the database of `url`."""
    connection = await asyncpg.connect(stack.postgres.url("postgres", database_name(url)))
    yield connection
    await connection.close(timeout=2.0)


@pytest.fixture
async def writer(url: str) -> AsyncIterator[Connection]:
    """A session of a client that is not the service."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close(timeout=2.0)


@pytest.fixture
async def make_feed() -> AsyncIterator[MakeFeed]:
    """Makes feeds of changes, with the arguments of the class, and closes them after the test.

    A server that is only slow is none that hangs: tests of such say how long is too long.
    """
    async with AsyncExitStack() as closing:

        def make(url: str, **settings: Any) -> ChangeFeed:
            feed = ChangeFeed(url, **{"answer_timeout_s": 30.0, "connect_timeout_s": 30.0, **settings})
            closing.push_async_callback(feed.aclose)
            return feed

        yield make


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


def database_name(url: str) -> str:
    return url.rpartition("/")[2]


async def wait_for(condition: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> int:
    """Polls until the condition holds, and returns how often it did not, `POLL_S` apart; raises `TimeoutError`."""
    polls = 0
    async with asyncio.timeout(timeout_s):
        while not await condition():
            polls += 1
            await asyncio.sleep(POLL_S)
    return polls


def next_beat(feed: ChangeFeed) -> Callable[[], Awaitable[bool]]:
    """For `wait_for`: whether the feed has told all up to a later time than now."""
    told_until = feed.told_until

    async def has_beaten() -> bool:
        return feed.told_until != told_until

    return has_beaten
