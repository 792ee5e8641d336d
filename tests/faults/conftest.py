"""Replicas of the service in processes of their own, on servers that a test may break."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import uvloop

from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.storage.postgres import Connection
from app.storage.templates import LOAD_MARK
from tests.faults.commands import Command
from tests.faults.held import HeldLoads

Serve = Callable[..., Replica]
Run = Callable[..., Command]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Call it with addresses and settings (without `APP_`) for a replica that serves; all end with the test.

    Their logs are files in the test's own folder, and must hold no traceback.
    """
    numbers = itertools.count(1)
    with ExitStack() as replicas:

        def start(database_url: str, redis_url: str, **settings: object) -> Replica:
            settings = {"drain_delay_s": 0, **settings}  # nobody reads /ready unless the test says so
            environment = {f"APP_{name.upper()}": str(value) for name, value in settings.items()}
            environment = {"APP_DATABASE_URL": database_url, "APP_REDIS_URL": redis_url, **environment}
            replica = Replica(environment, log=tmp_path / f"replica-{next(numbers)}.log")
            return replicas.enter_context(replica)

        yield start
    for log in tmp_path.glob("replica-*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def own_stack() -> Iterator[EmbeddedStack]:
    """Both servers, for the test alone to break; its database `app` is empty."""
    with EmbeddedStack() as stack:
        yield stack


@pytest.fixture
async def admin(stack: EmbeddedStack, database_url: str) -> AsyncIterator[Connection]:
    """The superuser, on the module's own database of the shared server."""
    connection = await asyncpg.connect(stack.postgres.url("postgres", database_url.rpartition("/")[2]))
    yield connection
    await connection.close(timeout=2.0)


@pytest.fixture
def loads(admin: Connection) -> Callable[[], Awaitable[int]]:
    """How many load queries have ended well on this database, by PostgreSQL's own count."""

    async def count() -> int:
        found: int = await admin.fetchval(
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements(true) AS s"
            " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND position($1 IN query) > 0",
            LOAD_MARK,
        )
        return found

    return count


@pytest.fixture
def held(stack: EmbeddedStack, database_url: str) -> HeldLoads:
    """`async with` it to hold the loads of the module's own database."""
    return HeldLoads(stack.postgres.url("postgres", database_url.rpartition("/")[2]))


@pytest.fixture
def run() -> Iterator[Run]:
    """Call it with a command line and settings for the started command; what still runs after the test is killed."""
    base = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    base.chmod(0o755)  # the servers' account must get there; pytest's own folders are closed to it
    commands: list[Command] = []

    def start(*arguments: str, **settings: Any) -> Command:
        commands.append(Command(base / str(len(commands)), *arguments, **settings))
        return commands[-1]

    try:
        yield start
    finally:
        for command in commands:
            for process in command.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            command.process.wait(10)
        shutil.rmtree(base)
