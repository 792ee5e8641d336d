"""What a flight costs: shared by many, and by nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine

import uvloop

from app.concurrency.singleflight import Group
from tests.bench.figure import Effort, Figure, Run, Subject

CALLERS = 100
ORIGIN_S = 0.05


async def _shared(_: Effort) -> dict[str, Run]:
    group = Group()
    calls = 0

    async def origin() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(ORIGIN_S)
        return calls

    async def wave() -> None:
        await asyncio.gather(*(group.do("key", origin) for _ in range(CALLERS)))

    await _seconds(wave())
    calls = 0
    shared_s = await _seconds(wave())
    alone_s = await _seconds(asyncio.sleep(ORIGIN_S))
    return {"singleflight_100x50ms": Run(shared_s * 1e3, alone_s * 1e3, sound=calls == 1)}


async def _overhead(effort: Effort) -> dict[str, Run]:
    group = Group()

    async def work() -> int:
        return 1

    async def flights() -> None:
        for key in range(effort.calls):
            await group.do(key, work)

    async def tasks() -> None:
        for _ in range(effort.calls):
            await asyncio.create_task(work())

    await flights()
    await tasks()
    a_flight_s = await _seconds(flights()) / effort.calls
    a_task_s = await _seconds(tasks()) / effort.calls
    return {"singleflight_overhead_us": Run(a_flight_s * 1e6, a_task_s * 1e6)}


async def _seconds(work: Coroutine[object, object, object]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


SHARED = Subject(
    [
        Figure(
            "singleflight_100x50ms",
            "ms",
            baseline="the 50 ms origin alone, on the same event loop",
            at_most=52,
            and_also="1 call",
        )
    ],
    lambda effort: uvloop.run(_shared(effort)),
)
"""100 callers of one key."""

OVERHEAD = Subject(
    [
        # The least that work costs which no caller's cancellation may end.
        Figure("singleflight_overhead_us", "µs", baseline="a task made and awaited for the same work", at_most=15)
    ],
    lambda effort: uvloop.run(_overhead(effort)),
)
"""`do` with one caller and work that is done at once."""
