"""The process that holds the lease is killed in mid-load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.fleet.conftest import LEASE_S, SIZE
from tests.fleet.database import FleetDatabase
from tests.fleet.fleet import Fleet

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLERS = 100
LOAD_MS = 200
ROUNDS = 3


async def test_a_killed_holder_costs_one_more_load_and_nobody_elses_answer(
    fleet: Fleet, database: FleetDatabase, cold_keys: Iterator[int]
) -> None:
    # The killed load never ends, so the server's statistics do not have it; its list of what runs does, as does the
    # word of the killed process. The counts must hold in every round, the time in the best one.
    await fleet.delay(LOAD_MS)
    longest_s = []
    for _ in range(ROUNDS):
        key, before = next(cold_keys), await database.loads()
        async with database.watched() as watched:
            reads = asyncio.create_task(fleet.read([key], callers=CALLERS))
            first = await fleet.told.until_loading(key)
            await asyncio.sleep(LOAD_MS / 2000)
            victim = fleet.workers[first.worker]
            try:
                await victim.kill()
                answers = [answer for worker in await reads for answer in worker]
            finally:
                await victim.start()
        assert len(answers) == (SIZE - 1) * CALLERS
        assert {answer.error for answer in answers} == {""}
        killed, taken_over = fleet.told.loads_of(key)
        assert killed.ended is None
        assert taken_over.worker != killed.worker
        assert await database.loads() - before == 1
        assert len({session for session, _ in watched.distinct}) == 2
        assert watched.most_at_once == 1
        longest_s.append(max(answer.took_s for answer in answers))
        await victim.call("delay", ms=LOAD_MS)
    print("longest wait, ms:", [round(1000 * took_s) for took_s in sorted(longest_s)])
    assert min(longest_s) <= LEASE_S + 0.600


async def test_a_holder_that_ends_in_good_order_is_replaced_at_once(
    fleet: Fleet, database: FleetDatabase, cold_keys: Iterator[int]
) -> None:
    # Its only caller leaves with it: the load is given up, the lease given back, and another's waiter goes on.
    await fleet.delay(3_000)
    key, before = next(cold_keys), await database.loads()
    holder, waiter = fleet.workers[:2]
    leaving = asyncio.create_task(holder.call("leave", key=key, after_s=0.2))
    first = await fleet.told.until_loading(key)
    assert first.worker == holder.number
    await waiter.call("delay", ms=50)
    (answer,) = await waiter.read([key])
    left_at = (await leaving)["at"]
    assert answer.error == ""
    assert await database.loads() - before == 1
    _, taken_over = fleet.told.loads_of(key)
    print(f"taken over {1000 * (taken_over.began - left_at):.1f} ms after the caller left")
    assert taken_over.began - left_at <= 0.100
