"""The four strategies that Internet Archive compared (github.com/internetarchive/xfetch, 2017), made of our parts.

Fifty workers, each of which pauses for 10 to 1,000 ms, reads one key once, and is replaced by another. A value lives
for 20 s and takes 500 ms to make; β = 1. Their figures are those at the end of the logs in that repository's `samples`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from app.cache.entry import Entry
from app.cache.freshness import wants_early_refresh
from app.cache.lease import Terms
from app.cache.origin import Loaded
from app.lab.process import Mode, Process, Shape
from app.lab.simulation.recorded_events import RecordedEvents
from app.lab.simulation.redis_model import ModelClient, ModelServer
from app.lab.simulation.virtual_time import VirtualTimeLoop

KEY = "1"
WORKERS = 50
TTL_S = 20.0
LOAD_S = 0.5
BETA = 1.0
PAUSES_MS = (10, 1_000)
FORK_S = 0.02
"""What a new PHP process adds to a worker's turn; their counts of reads imply it: 50 workers, 94 reads a second."""
LATENCY_S = 0.000_1


@dataclass(frozen=True, slots=True)
class Sample:
    """A run's counts. `earlies` are reads that drew a refresh, `contended` those that met another's lease."""

    seconds: float
    loads: int
    reads: int
    misses: int
    earlies: int = 0
    contended: int = 0


THEIRS: Mapping[str, Sample] = {
    "plain": Sample(290, 484, 27_179, 484),
    "locked": Sample(294, 14, 27_765, 519, contended=505),
    "xfetch": Sample(450, 52, 42_944, 0, 52),
    "both": Sample(317, 17, 30_025, 0, 53, 36),
}
"""By the names used here; there they are `fetch`, `locked`, `xfetch` and `xlocked`."""


class _Worker:
    """A process of its own, as theirs is: it shares nothing with the others but Redis."""

    def __init__(self, process: Process, events: RecordedEvents, loop: VirtualTimeLoop, draws: random.Random) -> None:
        self.process = process
        self.counts = events.counts
        self._loop = loop
        self._draws = draws

    async def plain(self) -> None:
        """Look, load, put: the read path in mode `none`."""
        await self.process.loader.read(KEY)

    async def locked(self) -> None:
        """Look, and try for the lease where nothing is; who has lost it is woken by the put: as mode `fleet` does."""
        await self.process.leased.obtain(KEY, Terms)

    async def xfetch(self, ttl: Callable[[float], float] = float) -> None:
        """Look, and load where the cache's own decision says so; nobody is coordinated with anybody."""
        entry, wants = await self._look(ttl)
        if entry is None:
            self.counts["miss"] += 1
        if entry is None or wants:
            await self.process.remote.put(KEY, await self.process.origin.load(KEY))

    async def xfetch_by_seconds(self) -> None:
        """As theirs decides: by Redis' TTL, which is in whole seconds."""
        await self.xfetch(round)

    async def both(self) -> None:
        """As `xfetch`, but only who gets the lease loads; who meets another's goes on with the value that it has."""
        entry, wants = await self._look()
        if entry is None:
            await self.locked()
        elif wants and await self.process.leased.refresh(KEY, entry) is None:
            self.counts["ducked"] += 1

    async def _look(self, ttl: Callable[[float], float] = float) -> tuple[Entry | None, bool]:
        """The value, if it is there and fresh, and whether to load it anew."""
        entry = await self.process.remote.get(KEY)
        now = self._loop.wall()
        if entry is None or not entry.is_fresh(now):
            return None, False
        expires_at = now + ttl(entry.created_at + entry.ttl_s - now)
        wants = wants_early_refresh(now, expires_at, entry.load_cost_s, BETA, 1.0 - self._draws.random())
        self.counts["early"] += wants
        return entry, wants


@dataclass(frozen=True, slots=True)
class Strategy:
    """What a worker does, and whose processes it takes: those with a lease are subscribed to its end."""

    read: Callable[[_Worker], Awaitable[None]]
    mode: Mode


STRATEGIES: Mapping[str, Strategy] = {
    "plain": Strategy(_Worker.plain, "none"),
    "locked": Strategy(_Worker.locked, "fleet"),
    "xfetch": Strategy(_Worker.xfetch, "none"),
    "xfetch by whole seconds": Strategy(_Worker.xfetch_by_seconds, "none"),
    "both": Strategy(_Worker.both, "fleet"),
}


def play(strategy: Strategy, seconds: float, seed: int) -> Sample:
    """One run in virtual time. Each worker's first read, which warms the cache, is not counted, as it is not there."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_play(strategy, seconds, random.Random(seed)))


async def _play(strategy: Strategy, seconds: float, draws: random.Random) -> Sample:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)  # noqa: S101 - it is what the runner makes
    server = ModelServer(loop.time, latency_s=LATENCY_S)
    workers = [_worker(strategy, loop, server, draws) for _ in range(WORKERS)]

    async def work(worker: _Worker) -> None:
        is_first = True
        while True:
            await asyncio.sleep(FORK_S + draws.randint(*PAUSES_MS) / 1_000)
            await strategy.read(worker)
            worker.counts["read"] += 1
            if is_first:
                worker.counts.clear()
                is_first = False

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*map(work, workers))
    for worker in workers:
        await worker.process.aclose()
    counts = sum((worker.counts for worker in workers), Counter[str]())
    return Sample(
        seconds,
        loads=counts["load"],
        reads=counts["read"],
        misses=counts["miss"] + counts["lease waited"],
        earlies=counts["early"],
        contended=counts["lease waited"] + counts["ducked"],
    )


def _worker(strategy: Strategy, loop: VirtualTimeLoop, server: ModelServer, draws: random.Random) -> _Worker:
    events = RecordedEvents()

    async def load(_key: str) -> Loaded:
        await asyncio.sleep(LOAD_S)
        events.counts["load"] += 1
        return Loaded(b"value", 1)

    shape = Shape(strategy.mode, ttl_s=TTL_S)
    client = ModelClient(server).as_redis()
    process = Process(client, load, shape, events, now=loop.wall, timer=loop.time, pick=draws.random)
    process.start()
    return _Worker(process, events, loop, draws)
