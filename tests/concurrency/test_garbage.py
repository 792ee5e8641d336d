"""What is left of a crowd that is refused: nothing for the garbage collector, whose pause all others would share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from app.concurrency.bulkhead import Bulkhead, BulkheadFullError, BulkheadTimeoutError
from app.concurrency.singleflight import Group

CROWD = 50


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_flights_that_fail_are_gone_when_their_callers_are(uncollected: None) -> None:
    group = Group()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    async def call(key: int) -> None:
        with pytest.raises(LookupError):
            await group.do(key, fail)

    await asyncio.gather(*(call(key) for key in range(CROWD)))
    await asyncio.sleep(0)
    assert gc.collect() < CROWD, "less than one object a flight"


async def test_waits_for_a_slot_that_are_refused_leave_nothing_whichever_way(uncollected: None) -> None:
    bulkhead = Bulkhead(concurrent=1, queued=CROWD, wait_timeout_s=0.01)
    refusals: list[str] = []

    async def wait(key: int) -> None:
        try:
            async with bulkhead.slot(key):
                pass
        except (BulkheadTimeoutError, BulkheadFullError) as error:
            refusals.append(type(error).__name__)

    async with bulkhead.slot("first"):
        crowd = [asyncio.create_task(wait(0)) for _ in range(CROWD)]
        others = [asyncio.create_task(wait(1 + number)) for number in range(CROWD // 2)]
        await asyncio.wait([*crowd, *others])
    del crowd, others
    await asyncio.sleep(0)
    assert {"BulkheadTimeoutError", "BulkheadFullError"} == set(refusals)
    assert gc.collect() < CROWD, "less than one object a caller"
