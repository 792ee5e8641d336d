"""The fleet and all around it, run from beginning to end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from app.cache.loader import Reading
from app.lab.experiment import Progress, silent
from app.lab.scale.least import FleetLeast
from app.lab.scale.network import Network
from app.lab.scale.origin import SimulatedOrigin
from app.lab.scale.outcome import Outage, Outcome, Sample
from app.lab.scale.plan import Plan
from app.lab.scale.redis import SimulatedRedis
from app.lab.scale.replica import Replica
from app.lab.scale.tally import Tally
from app.lab.scale.workload import Arrivals, reads
from app.lab.simulation.virtual_time import VirtualTimeLoop, run_virtually

SETTLE_S = 1.0
"""Before the first read, for connections."""
TICK_S = 0.5
"""The counters are read as often as this; phases and events begin with a tick."""
UNTIL_COUNTED = 3
"""Early refreshes are counted as they end; in so many times of a load all have."""
DRAIN_S = 5.0
"""After the last read, for those under way."""


def simulate(plan: Plan, seed: int, progress: Progress = silent, *, reads_seed: int | None = None) -> Outcome:
    """The plan carried out; the same for the same seed, on any machine. The reads may have a seed of their own."""

    async def whole() -> Outcome:
        return await _World(plan, seed, seed if reads_seed is None else reads_seed, progress).run()

    with _uncollected():
        return run_virtually(whole())


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look through millions of objects again and again; little of it is."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _World:
    """On the running loop, which must be one of virtual time. It draws nothing but from generators of its own."""

    def __init__(self, plan: Plan, seed: int, reads_seed: int, progress: Progress) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)  # noqa: S101 - `simulate` sees to it
        self._loop = loop
        self._plan = plan
        self._seed = seed
        self._progress = progress
        self._settings = plan.settings
        self._server = SimulatedRedis(loop)
        self._network = Network(Random(f"{seed} network"))
        self._origin = SimulatedOrigin(
            loop,
            Random(f"{seed} origin"),
            load_s=plan.load_s,
            spread=plan.load_spread,
            payload_bytes=plan.payload_bytes,
        )
        self._tally = Tally()
        self._least = FleetLeast(plan.ttl_s)
        self._arrivals = reads(plan, reads_seed)
        self._events = Random(f"{seed} events")
        self._born = 0
        self._serving = [self._replica() for _ in range(plan.replicas)]
        self._began_at = 0.0
        self._reads = 0
        self._lacking: set[tuple[Replica, str, int]] | None = None
        """The versions that were read where they were not in L1, while Redis is away."""
        self._outcome = Outcome(plan, seed)

    async def run(self) -> Outcome:
        """From the first read to the last answer; nothing of it is left, however it ends."""
        try:
            await self._run()
        finally:
            for replica in self._serving:
                await replica.crash()
        return self._outcome

    async def _run(self) -> None:
        for replica in self._serving:
            replica.start()
        await asyncio.sleep(SETTLE_S)
        self._began_at = self._loop.time()
        self._server.commands.clear()
        self._sample(0.0)
        happening = [self._loop.create_task(each) for each in (self._writes(), self._crashes(), self._failover())]
        self._loop.post_at(self._began_at + self._arrivals.pause_s(), self._arrive)
        for tick in range(1, round(self._plan.seconds / TICK_S) + 1):
            await self._until(tick * TICK_S)
            self._sample(tick * TICK_S)
            self._progress(tick * TICK_S / self._plan.seconds, f"second {tick * TICK_S:.0f}")
        await asyncio.gather(*happening)
        await asyncio.sleep(DRAIN_S)
        self._outcome.unanswered = sum(len(replica.calls) for replica in self._serving)
        self._outcome.loads = [(at - self._began_at, key) for at, key in self._origin.loads]
        self._outcome.most_at_once = self._origin.most_at_once
        self._outcome.longest_announcement_s = self._origin.longest_announcement_s

    async def _until(self, at: float) -> None:
        await asyncio.sleep(self._began_at + at - self._loop.time())

    def _replica(self) -> Replica:
        random = Random(f"{self._seed} replica {self._born}")
        self._born += 1
        half = self._plan.skew_s / 2
        skew_s = random.uniform(-half, half)
        return Replica(
            self._loop, self._settings, self._server, self._origin, self._network, self._tally, random, skew_s
        )

    def _arrive(self) -> None:
        """Reads, one after the other, for as long as nothing else happens in between."""
        loop, least, outcome, origin, arrivals = self._loop, self._least, self._outcome, self._origin, self._arrivals
        ends_at = self._began_at + self._plan.seconds
        while True:
            now, key = loop.time(), arrivals.key()
            self._reads += 1
            if least.is_needed(key, now):
                outcome.least.append((now - self._began_at, key))
            replica = self._serving[arrivals.place(len(self._serving))]
            slot = replica.loader.fresh(key)
            if slot is None:
                if self._lacking is not None:
                    self._lacking.add((replica, key, origin.version(key)))
                replica.call(self._read(replica, key, now))
            elif slot.version != origin.versions.get(key, 1):
                outcome.outdated_for(origin.outdated_for_s(key, slot.version, now))
            at = now + arrivals.pause_s()
            if at >= ends_at:
                return
            if not loop.passes_to(at):
                loop.post_at(at, self._arrive)
                return

    async def _read(self, replica: Replica, key: str, began: float) -> None:
        outcome = self._outcome
        try:
            reading: Reading = await replica.loader.read(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, that nobody fails is not true then
            outcome.failed[type(error).__name__] += 1
            return
        outcome.waited_s.append(self._loop.time() - began)
        outcome.outdated_for(self._origin.outdated_for_s(key, reading.version, began))
        if reading.source == "stale":
            outcome.oldest_stale_s = max(outcome.oldest_stale_s, reading.age_s)

    async def _writes(self) -> None:
        """Changes of keys as popular as for reads, in turn through a replica and past the service."""
        plan = self._plan
        arrivals = Arrivals(plan.keys, plan.zipf_s, plan.writes_a_s, Random(f"{self._seed} writes"))
        through = False
        ends_at = self._began_at + plan.seconds
        while plan.writes_a_s and (at := self._loop.time() + arrivals.pause_s()) < ends_at:
            await asyncio.sleep(at - self._loop.time())
            key, through = arrivals.key(), not through
            version = self._origin.commit(key)
            if through:
                self._least.written(key, self._loop.time())
                replica = self._serving[arrivals.place(len(self._serving))]
                replica.call(replica.loader.written(key, version, self._origin.payload(key, version)))
            else:
                self._least.changed(key)
                self._outcome.changed_past.append(self._loop.time() - self._began_at)

    async def _crashes(self) -> None:
        plan = self._plan
        returns = []
        for number in range(plan.crashes):
            await self._until(plan.crash_at_s + number * plan.crash_over_s / plan.crashes)
            crashed = self._serving.pop(int(self._events.random() * len(self._serving)))
            self._outcome.cut_off += await crashed.crash()
            self._outcome.crashed_at.append(self._loop.time() - self._began_at)
            returns.append(self._loop.create_task(self._return_one()))
        await asyncio.gather(*returns)

    async def _return_one(self) -> None:
        await asyncio.sleep(self._plan.down_s)
        replica = self._replica()
        replica.start()
        self._serving.append(replica)

    async def _failover(self) -> None:
        plan = self._plan
        if plan.failover_at_s is None:
            return
        await self._until(plan.failover_at_s - plan.lost_s)
        kept = self._server.snapshot()
        await self._until(plan.failover_at_s)
        self._server.go_down()
        lacking = self._lacking = set()
        loads, early = len(self._origin.loads), self._tally.counts["early refresh"]
        under_way = sum(replica.under_way for replica in self._serving)
        await asyncio.sleep(plan.refused_s)
        self._server.come_up(kept)
        while not all(replica.asks_redis for replica in self._serving):  # noqa: ASYNC110 - each knows only its own
            await asyncio.sleep(TICK_S / 5)
        self._lacking = None
        ended_at, loads = self._loop.time() - self._began_at, len(self._origin.loads) - loads
        await asyncio.sleep(UNTIL_COUNTED * plan.load_s)
        self._outcome.outage = Outage(
            began_at=plan.failover_at_s,
            ended_at=ended_at,
            loads=loads,
            lacking=len(lacking) + under_way,
            early=self._tally.counts["early refresh"] - early,
        )

    def _sample(self, at: float) -> None:
        sizes = [replica.memory.size_bytes for replica in self._serving]
        self._outcome.samples.append(
            Sample(
                at=at,
                reads=self._reads,
                from_l1=self._tally.from_l1,
                waited=len(self._outcome.waited_s),
                loads=len(self._origin.loads),
                least=len(self._outcome.least),
                commands=dict(self._server.commands),
                delivered=self._server.delivered,
                redis_busy_s=self._server.busy_s,
                counts=dict(self._tally.counts),
                failed=sum(self._outcome.failed.values()),
                l1_mean_bytes=sum(sizes) / len(sizes),
                l1_most_bytes=max(sizes),
            )
        )
