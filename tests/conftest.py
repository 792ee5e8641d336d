"""Real servers for tests: one stack for the whole session, and private ones for tests that break them."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from app.embedded.cluster import EmbeddedRedisCluster
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.redis import EmbeddedRedis
from app.embedded.stack import EmbeddedStack

for _name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[_name]  # what tests start would send its traces to whoever runs them

# A shell's job in the background ignores SIGINT, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is. What hangs is ended by pytest's timeout.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def stack() -> Iterator[EmbeddedStack]:
    """PostgreSQL and Valkey, shared by all tests: break private ones instead. Its database `app` stays empty."""
    with EmbeddedStack() as started:
        yield started


@pytest.fixture(scope="session")
def empty_database(stack: EmbeddedStack) -> Callable[[], str]:
    """Call it for the URL, with role `app`, of a new database without any migration."""
    numbers = itertools.count(1)

    def make() -> str:
        return _make_database(stack, f"empty_{next(numbers)}", template="app")

    return make


@pytest.fixture(scope="session")
def fresh_database(stack: EmbeddedStack) -> Callable[[], str]:
    """Call it for the URL, with role `app`, of a new database with all migrations, seeds included."""
    numbers = itertools.count(1)

    @cache
    def migrated() -> str:
        from app.storage.migrate import migrate

        url = _make_database(stack, "migrated", template="app")
        with ThreadPoolExecutor(1) as thread:  # a loop of its own, away from the tests' loops
            thread.submit(asyncio.run, migrate(url)).result()
        return "migrated"

    def make() -> str:
        return _make_database(stack, f"fresh_{next(numbers)}", template=migrated())

    return make


@pytest.fixture(scope="module")
def database_url(fresh_database: Callable[[], str]) -> str:
    """A migrated database of the test module's own."""
    return fresh_database()


@pytest.fixture
def redis_url(stack: EmbeddedStack) -> str:
    """The shared Valkey, emptied."""
    with socket.create_connection((stack.redis.host, stack.redis.port), 5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(64) == b"+OK\r\n"
    return stack.redis.url()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[EmbeddedRedisCluster]:
    with EmbeddedRedisCluster() as started:
        yield started


@pytest.fixture
def redis_cluster(shared_cluster: EmbeddedRedisCluster) -> EmbeddedRedisCluster:
    """The shared cluster, emptied, with every replica in step. A test that breaks a node brings it back."""
    shared_cluster.wait_in_step()
    for node in shared_cluster.nodes:
        if "role:master" in node.ask("INFO", "replication"):
            node.ask("FLUSHALL")
    return shared_cluster


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Call it, with `EmbeddedPostgres`' own arguments, for a started server that the test may break."""
    with ExitStack() as servers:

        def make(
            directory: Path | None = None, port: int = 0, options: Mapping[str, str] | None = None
        ) -> EmbeddedPostgres:
            return servers.enter_context(EmbeddedPostgres(directory, port, options=options))

        yield make


@pytest.fixture
def own_redis() -> Iterator[Callable[..., EmbeddedRedis]]:
    """Call it, with `EmbeddedRedis`' own arguments, for a started server that the test may break."""
    with ExitStack() as servers:

        def make(
            directory: Path | None = None, port: int = 0, options: Mapping[str, str] | None = None
        ) -> EmbeddedRedis:
            return servers.enter_context(EmbeddedRedis(directory, port, options=options))

        yield make


def _make_database(stack: EmbeddedStack, name: str, template: str) -> str:
    stack.postgres.sql(f"CREATE DATABASE {name} TEMPLATE {template} OWNER app", database="postgres")
    return stack.postgres.url("app", name)
