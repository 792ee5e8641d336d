"""All processes end at once, and come back to a warm Redis."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from tests.fleet.conftest import SIZE
from tests.fleet.database import FleetDatabase
from tests.fleet.fleet import Answer, Fleet, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = 50
RATE = 100.0
SECONDS = 2.0
LOAD_MS = 200


async def test_a_restart_of_all_at_once_under_load_loads_nothing_that_redis_has(
    fleet: Fleet, database: FleetDatabase, cold_keys: Iterator[int]
) -> None:
    # The load begins in each process with its first moment, as that of a balancer does, and all are killed under it.
    await fleet.delay(0)
    keys = list(itertools.islice(cold_keys, KEYS))
    await fleet.workers[0].read(keys)
    before = await database.loads()
    under_load = [asyncio.create_task(worker.drive(keys, rate=RATE, seconds=10 * SECONDS)) for worker in fleet.workers]
    await asyncio.sleep(0.5)
    await fleet.kill()
    await asyncio.gather(*under_load, return_exceptions=True)

    async def begin_again(worker: Worker) -> list[Answer]:
        await worker.start()
        await worker.call("delay", ms=LOAD_MS)
        return await worker.drive(keys, rate=RATE, seconds=SECONDS)

    driven = await asyncio.gather(*(begin_again(worker) for worker in fleet.workers))
    answers = [answer for worker in driven for answer in worker]
    assert len(answers) == SIZE * RATE * SECONDS
    assert {answer.error for answer in answers} == {""}
    assert await database.loads() - before == 0
    assert [load for load in fleet.told.loads if load.key in keys and load.worker != 0] == []
