"""What a fleet-wide fill costs Redis."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest
from redis.asyncio import Redis

from tests.fleet.conftest import SIZE
from tests.fleet.fleet import Fleet

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLERS = 100
LOAD_MS = 200
ROUNDS = 3
MOST_A_PROCESS = 4
_LINE = re.compile(r"\[\d+ (?P<client>\S+)\] \"(?P<command>[^\"]+)\"")
NOT_THE_FILLS = {"PING", "HELLO", "CLIENT", "AUTH", "SELECT", "SUBSCRIBE"}
"""The subscription's signs of life, and what opens a connection."""


async def test_a_fill_costs_redis_a_few_commands_a_process_however_many_wait(
    fleet: Fleet, redis: Redis, cold_keys: Iterator[int]
) -> None:
    # As MONITOR shows them, without what scripts do inside the server; the first fill makes scripts known to it.
    await fleet.delay(LOAD_MS)
    await fleet.read([next(cold_keys)], callers=CALLERS)
    for _ in range(ROUNDS):
        key = next(cold_keys)
        async with redis.monitor() as monitor:
            await fleet.read([key], callers=CALLERS)
            await redis.set("end", key)
            commands = await _until_end(monitor.connection, key)
        ports = {
            connection.laddr.port: worker.number
            for worker in fleet.workers
            for connection in psutil.Process(worker.pid).net_connections("tcp")
        }
        by_process = Counter(ports[port] for port, command in commands if command.upper() not in NOT_THE_FILLS)
        print("commands by process:", sorted(by_process.values()))
        assert len(by_process) == SIZE
        assert max(by_process.values()) <= MOST_A_PROCESS


async def _until_end(connection: object, key: int) -> list[tuple[int, str]]:
    """The commands of clients, each with the client's port."""
    commands: list[tuple[int, str]] = []
    async with asyncio.timeout(10):
        while True:
            text = (await connection.read_response()).decode()  # type: ignore[attr-defined]
            if f'"SET" "end" "{key}"' in text:
                return commands
            line = _LINE.search(text)
            assert line is not None, text
            if line["client"] != "lua":
                commands.append((int(line["client"].rpartition(":")[2]), line["command"]))
