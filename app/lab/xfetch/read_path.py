"""XFetch as the service has it: the whole read path, in which flight and lease make one load of each refresh."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from app.cache.origin import Loaded
from app.lab.process import Process, Shape
from app.lab.simulation.recorded_events import RecordedEvents
from app.lab.simulation.redis_model import ModelClient, ModelServer
from app.lab.simulation.virtual_time import VirtualTimeLoop

KEY = "1"
LOAD_S = 0.2
LATENCY_S = 0.000_5
LIFE_LEADS = 60
"""The TTL, in times of βδ."""
EARLIEST_LEADS = 25
"""Reads are sent from so long before the expiry on, in the same times: by then none of 10^7 refreshes has begun."""
LATEST_LOADS = 2
"""And up to so many loads' times after it."""


@dataclass(frozen=True, slots=True)
class Refreshes:
    """A key's refreshes: the loads of each, and how long before the expiry it began, in loads' times.

    Of all `reads` those that `waited` for anything.
    """

    loads: Sequence[int]
    gaps: Sequence[float]
    waited: int
    reads: int


def read_through(shape: Shape, rate: float, refreshes: int, *, processes: int, seed: int) -> Refreshes:
    """Poisson reads of one key by so many processes of that shape, on virtual time, `rate` in the time of a load."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_read_through(shape, rate, refreshes, processes, random.Random(seed)))


def shape(beta: float, *, lease: bool = True) -> Shape:
    """Mode `full` at this β, and mode `none` where it is 0."""
    if beta == 0:
        return Shape("none", ttl_s=LIFE_LEADS * LOAD_S, beta=0.0)
    return Shape("full", ttl_s=LIFE_LEADS * beta * LOAD_S, beta=beta, lease=lease)


async def _read_through(shape: Shape, rate: float, refreshes: int, processes: int, draws: random.Random) -> Refreshes:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)  # noqa: S101 - it is what the runner makes
    server = ModelServer(loop.time, latency_s=LATENCY_S)
    begins: list[float] = []

    async def load(_key: str) -> Loaded:
        begins.append(loop.time())
        await asyncio.sleep(LOAD_S)
        return Loaded(b"value", 1)

    fleet = [
        Process(
            ModelClient(server).as_redis(),
            load,
            shape,
            RecordedEvents(),
            now=loop.wall,
            timer=loop.time,
            pick=draws.random,
        )
        for _ in range(processes)
    ]
    for process in fleet:
        process.start()
    await fleet[0].loader.read(KEY)
    await asyncio.gather(*(process.loader.read(KEY) for process in fleet))
    loads: list[int] = []
    gaps: list[float] = []
    waiting: set[asyncio.Task[object]] = set()
    reads = waited = 0
    for _ in range(refreshes):
        known, expires_at = len(begins), begins[-1] + shape.ttl_s
        at = expires_at - EARLIEST_LEADS * shape.beta * LOAD_S
        while (at := at + draws.expovariate(rate / LOAD_S)) < expires_at + LATEST_LOADS * LOAD_S:
            if not loop.passes_to(at):
                await asyncio.sleep(at - loop.time())
            reader = draws.choice(fleet).loader
            reads += 1
            if reader.fresh(KEY) is None:
                waited += 1
                task: asyncio.Task[object] = asyncio.create_task(reader.read(KEY))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)
        loads.append(len(begins) - known)
        gaps.append((expires_at - begins[known]) / LOAD_S)
    for process in fleet:
        await process.aclose()
    return Refreshes(loads, gaps, waited, reads)
