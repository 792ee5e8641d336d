"""Whatever happens in whatever order, no read is older than `docs/staleness.md` says it may be.

Reads, writes, announcements that come late and out of order, lost feeds, processes that die, outages and failovers of
Redis, a slow or absent origin, and clocks that differ: drawn by hypothesis, run on the real code in virtual time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from app.cache.loader import Reading
from tests.cache.world import FAILURES, Replica, Times, World, Write

TIMES = Times()
KEYS = ["1", "2"]
REDIS_S = 3 * TIMES.redis_timeout + 2 * TIMES.redis_latency
"""The longest that a process takes for one operation: two timeouts for its turn, and one for the answer."""
FLIGHT_S = TIMES.load_deadline + REDIS_S
"""The longest between the moment that a load reads its value and the moment that its last caller is answered."""
LIFE_S = TIMES.ttl + TIMES.skew + REDIS_S
KEPT_S = LIFE_S + TIMES.stale_if_error

numbers = st.integers(0, 2)
keys = st.sampled_from(KEYS)
delays = st.lists(st.floats(0.0, TIMES.most_delay), min_size=3, max_size=3)


@dataclass
class Read:
    """A read in hand, and what was known when it began."""

    key: str
    replica: Replica
    began: float
    task: asyncio.Task[Reading]
    least_version: int
    """Of which this process had been told, or which it wrote itself."""
    acknowledged: list[Acknowledged]


@dataclass
class Acknowledged:
    """A write that is known to have been committed. `redis_knows` until Redis forgets."""

    write: Write
    at: float
    redis_knows: bool


class Staleness(RuleBasedStateMachine):
    """Three processes in one mode; each rule is something that happens."""

    mode: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.mode, (0.0, TIMES.skew / 2, -TIMES.skew / 2), TIMES)
        self.loop = self.world.loop
        self.acknowledged: list[Acknowledged] = []
        self.reads: list[Read] = []
        self.snapshot = dict(self.world.server.data.strings)

    @initialize(delays=delays)
    def fill(self, delays: list[float]) -> None:
        for key in KEYS:
            self.world.origin.commit(key, delete=False, delays=delays)
        self.world.advance(TIMES.most_delay)

    @rule(number=numbers, key=keys, delete=st.booleans(), delays=delays)
    def write(self, number: int, key: str, delete: bool, delays: list[float]) -> None:
        """Through a process, which acknowledges it when it has told Redis, or could not."""
        replica = self.world.replicas[number]

        async def write() -> None:
            await asyncio.sleep(0.002)
            write = self.world.origin.commit(key, delete=delete, delays=delays)
            await replica.loader.written(key, write.version, self.world.origin.values[key].payload)
            replica.wrote[key] = max(write.version, replica.wrote.get(key, 0))
            knows = not replica.recovery.pending and not replica.recovery._sweep
            self.acknowledged.append(Acknowledged(write, self.loop.time(), knows))

        replica.calls.add(self.loop.create_task(write()))
        self._go_on(0.0)

    @rule(key=keys, delete=st.booleans(), delays=delays)
    def write_at_the_origin(self, key: str, delete: bool, delays: list[float]) -> None:
        write = self.world.origin.commit(key, delete=delete, delays=delays)
        self.acknowledged.append(Acknowledged(write, self.loop.time(), redis_knows=False))

    @rule(seconds=st.sampled_from([0.001, 0.002, 0.01, 0.06, 0.3, 0.6, 1.1, 2.0, 5.0, 9.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self._go_on(seconds)

    @precondition(lambda self: self.mode == "full")
    @rule(number=numbers, unnoticed_s=st.floats(0.0, TIMES.unnoticed))
    def feed_is_lost(self, number: int, unnoticed_s: float) -> None:
        self.world.replicas[number].feed.lose(unnoticed_s)

    @precondition(lambda self: self.mode == "full")
    @rule(number=numbers, knows=st.booleans())
    def feed_catches_up(self, number: int, knows: bool) -> None:
        self.world.replicas[number].feed.catch_up(knows=knows)

    @rule(number=numbers)
    def process_dies(self, number: int) -> None:
        """With the leases that it holds; what it had to tell Redis is never told."""
        self.world.replace(number)
        self._check_reads()

    @rule(state=st.sampled_from(["up", "up", "down", "hung"]))
    def redis_is(self, state: str) -> None:
        self.world.server.change(state)
        self._go_on(0.0)

    @rule()
    def redis_is_copied(self) -> None:
        self.snapshot = dict(self.world.server.data.strings)

    @rule(with_values=st.booleans())
    def redis_fails_over(self, with_values: bool) -> None:
        """To a server that knows what was copied, without floors and leases; or nothing at all."""
        kept = self.snapshot.items() if with_values else ()
        self.world.server.fail_over({name: value for name, value in kept if name.endswith("}")})
        for each in self.acknowledged:
            each.redis_knows = False
        self._go_on(0.0)

    @rule(is_up=st.booleans(), load_s=st.sampled_from([0.001, TIMES.load, 0.5, 30.0]))
    def origin_is(self, is_up: bool, load_s: float) -> None:
        self.world.origin.is_up, self.world.origin.load_s = is_up, load_s

    def teardown(self) -> None:
        try:
            self._end()
        finally:
            self.world.close()

    def _end(self) -> None:
        """All is well again, and nobody waits for ever."""
        self.world.server.change("up")
        self.world.origin.is_up, self.world.origin.load_s = True, TIMES.load
        self.world.advance(TIMES.wait + TIMES.soft_deadline + REDIS_S)
        self._check_reads()
        assert not self.reads
        for replica in self.world.replicas:
            assert not replica.loader._refreshing
            assert not replica.recovery.pending
            assert replica.wakeups is None or not replica.wakeups._waiters

    def _go_on(self, seconds: float) -> None:
        """Meanwhile every process is asked for every key, again and again."""
        ends_at = self.loop.time() + seconds
        step_s = min(max(0.02, seconds / 12), 0.7)
        while True:
            for replica in self.world.replicas:
                for key in KEYS:
                    self._read(replica, key)
            left_s = ends_at - self.loop.time()
            self.world.advance(min(step_s, max(0.0, left_s)))
            self._check_reads()
            if left_s <= step_s:
                return

    def _read(self, replica: Replica, key: str) -> None:
        task = self.loop.create_task(replica.loader.read(key))
        replica.calls.add(task)
        task.add_done_callback(replica.calls.discard)
        known = [each for each in self.acknowledged if each.write.key == key]
        least = max(replica.feed.told.get(key, 0), replica.wrote.get(key, 0))
        self.reads.append(Read(key, replica, self.loop.time(), task, least, known))

    def _check_reads(self) -> None:
        for read in [read for read in self.reads if read.task.done()]:
            self.reads.remove(read)
            if not read.task.cancelled():
                self._check(read)

    def _check(self, read: Read) -> None:
        try:
            reading = read.task.result()
        except (*FAILURES, TimeoutError):
            return
        assert reading.version >= read.least_version, f"known to be past: {reading} for {read}"
        for each in read.acknowledged:
            if each.write.version > reading.version:
                late_s, bound_s = read.began - each.at, self._bound_s(read, reading, each)
                assert late_s <= bound_s, f"{late_s} s past {each}, at most {bound_s}: {reading} for {read}"

    def _bound_s(self, read: Read, reading: Reading, missed: Acknowledged) -> float:
        """`docs/staleness.md`."""
        if self.mode == "full":
            return self._bound_in_full_s(read, reading, missed)
        flight_s = FLIGHT_S if self.mode in ("singleflight", "fleet") else 0.0
        return flight_s if missed.redis_knows else max(LIFE_S, flight_s)

    def _bound_in_full_s(self, read: Read, reading: Reading, missed: Acknowledged) -> float:
        feed = read.replica.feed
        if missed.write.committed_at <= read.replica.started_at:
            return KEPT_S if reading.source == "stale" else LIFE_S
        if feed.is_connected_at(read.began):
            return TIMES.most_delay
        noticed_at = feed.noticed_before(read.began)
        if noticed_at is None or read.began <= noticed_at + TIMES.coherence_grace + REDIS_S:
            return TIMES.most_delay + TIMES.unnoticed + TIMES.coherence_grace + REDIS_S
        return KEPT_S if reading.source == "stale" else max(TIMES.coherence_grace + TIMES.skew + REDIS_S, FLIGHT_S)


class StalenessOfNone(Staleness):
    mode = "none"


class StalenessOfMutex(Staleness):
    mode = "mutex"


class StalenessOfSingleflight(Staleness):
    mode = "singleflight"


class StalenessOfFleet(Staleness):
    mode = "fleet"


class StalenessOfFull(Staleness):
    mode = "full"


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )


TestStalenessOfNone = StalenessOfNone.TestCase
TestStalenessOfMutex = StalenessOfMutex.TestCase
TestStalenessOfSingleflight = StalenessOfSingleflight.TestCase
TestStalenessOfFleet = StalenessOfFleet.TestCase
TestStalenessOfFull = StalenessOfFull.TestCase
TestStalenessOfNone.settings = TestStalenessOfMutex.settings = _settings(15)
TestStalenessOfSingleflight.settings = TestStalenessOfFleet.settings = _settings(30)
TestStalenessOfFull.settings = _settings(80)
