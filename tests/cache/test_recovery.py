"""What Redis is told after it was away: each interleaving forced on a remote tier that does as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from app.cache.entry import Entry
from app.cache.recovery import AT_ONCE, Recovery
from app.cache.remote import RemoteCache, Stored
from app.concurrency.breaker import CircuitBreaker


class ScriptedRemote(RemoteCache):
    """Writes down what it is told. While `gate` is closed, who tells it something waits."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, int]] = []
        self.probes: list[tuple[list[tuple[str, int]], bool]] = []
        self.available = True
        self.fails = 0
        """So many of the next things it is told fail."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most_under_way = 0
        self.on_said: Callable[[str, str, int], None] = lambda _kind, _key, _version: None

    @property
    def is_available(self) -> bool:
        return self.available

    async def invalidate(self, key: str, version: int) -> bool:
        return await self._hear("invalidate", key, version)

    async def put(self, key: str, entry: Entry, token: str = "") -> Stored:
        return Stored.STORED if await self._hear("put", key, entry.version) else Stored.UNAVAILABLE

    async def probe(self, invalidations: list[tuple[str, int]], *, sweep: bool) -> bool:
        self.probes.append((list(invalidations), sweep))
        await self.gate.wait()
        if self.fails:
            self.fails -= 1
            return False
        self.available = True
        return True

    async def _hear(self, kind: str, key: str, version: int) -> bool:
        self.said.append((kind, key, version))
        self.on_said(kind, key, version)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.fails:
            self.fails -= 1
            return False
        return self.available


class Rig:
    def __init__(self, max_pending: int) -> None:
        self.remote = ScriptedRemote()
        self.values: list[tuple[str, Entry]] = []
        self.recovery = Recovery(
            self.remote, CircuitBreaker(), max_pending=max_pending, fresh_values=lambda: list(self.values)
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 - the rig must not change what it watches
                await asyncio.sleep(0.001)

    async def idle(self) -> None:
        await self.until(lambda: self.recovery.pending == 0)
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def open_recovery() -> AsyncIterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def open_(max_pending: int = 100) -> Rig:
        rigs.append(Rig(max_pending))
        rigs[-1].recovery.start()
        return rigs[-1]

    yield open_
    for rig in rigs:
        await rig.recovery.aclose()


Open = Callable[..., Rig]


def entry(version: int = 1) -> Entry:
    return Entry(b"x", version, 1_000.0, 30.0, 0.01)


async def test_an_announcement_is_passed_on_without_anybody_waiting_for_it(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.recovery.invalidate_later("1", 5)
    assert (rig.recovery.pending, rig.remote.said) == (1, [])
    await rig.idle()
    assert rig.remote.said == [("invalidate", "1", 5)]
    assert rig.remote.probes == []


async def test_of_one_key_the_newest_version_is_passed_on_once(open_recovery: Open) -> None:
    rig = open_recovery()
    for version in (5, 7, 6):
        rig.recovery.invalidate_later("1", version)
    await rig.idle()
    assert rig.remote.said == [("invalidate", "1", 7)]


async def test_a_version_that_rises_while_the_last_one_is_on_its_way_is_passed_on_too(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.remote.gate.clear()
    rig.recovery.invalidate_later("1", 5)
    await rig.until(lambda: len(rig.remote.said) == 1)
    rig.recovery.invalidate_later("1", 6)
    rig.remote.gate.set()
    await rig.idle()
    assert rig.remote.said == [("invalidate", "1", 5), ("invalidate", "1", 6)]


async def test_what_fails_is_tried_again_until_it_is_taken(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.remote.fails = 3
    rig.recovery.invalidate_later("1", 5)
    await rig.idle()
    assert rig.remote.said == [("invalidate", "1", 5)] * 4


async def test_a_write_tells_redis_at_once_and_where_that_fails_later(open_recovery: Open) -> None:
    rig = open_recovery()
    assert await rig.recovery.invalidate("1", 5)
    assert rig.recovery.pending == 0
    rig.remote.fails = 1
    assert not await rig.recovery.invalidate("1", 6)
    assert rig.recovery.pending == 1
    await rig.idle()
    assert rig.remote.said[-1] == ("invalidate", "1", 6)


async def test_while_redis_is_away_it_is_told_nothing_but_what_the_probe_takes_along(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.remote.available = False
    rig.remote.fails = 2
    rig.values = [("9", entry())]
    rig.recovery.invalidate_later("1", 5)
    rig.recovery.invalidate_later("2", 6)
    await rig.idle()
    await rig.until(lambda: bool(rig.remote.said))
    assert rig.remote.probes == [([("1", 5), ("2", 6)], False)] * 3
    assert rig.remote.said == [("put", "9", 1)]


async def test_the_opening_of_the_breaker_alone_is_cause_to_probe_and_to_refill(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.values = [("1", entry(3))]
    rig.remote.available = False
    rig.recovery.wake()
    await rig.until(lambda: bool(rig.remote.said))
    assert (rig.remote.probes, rig.remote.said) == ([([], False)], [("put", "1", 3)])


async def test_what_is_announced_during_the_probe_is_passed_on_after_it(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.remote.available = False
    rig.remote.gate.clear()
    rig.recovery.invalidate_later("1", 5)
    await rig.until(lambda: bool(rig.remote.probes))
    rig.recovery.invalidate_later("1", 6)
    rig.recovery.invalidate_later("2", 5)
    rig.remote.gate.set()
    await rig.idle()
    assert rig.remote.said == [("invalidate", "1", 6), ("invalidate", "2", 5)]


async def test_what_is_announced_during_the_refill_goes_ahead_of_the_values_that_it_made_past(
    open_recovery: Open,
) -> None:
    rig = open_recovery()
    rig.values = [(str(number), entry(1)) for number in range(3 * AT_ONCE)]
    last = rig.values[-1][0]

    def announce(kind: str, key: str, version: int) -> None:
        if (kind, key) == ("put", "0"):
            rig.recovery.invalidate_later(last, 2)

    rig.remote.on_said = announce
    rig.remote.available = False
    rig.recovery.wake()
    await rig.until(lambda: ("put", last, 1) in rig.remote.said)
    assert rig.remote.said.index(("invalidate", last, 2)) < rig.remote.said.index(("put", last, 1))


async def test_values_of_which_any_may_be_past_are_not_put_back(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.values = [(str(number), entry(1)) for number in range(3 * AT_ONCE)]
    rig.remote.on_said = lambda kind, _key, _version: rig.recovery.sweep_later() if kind == "put" else None
    rig.remote.available = False
    rig.recovery.wake()
    await rig.until(lambda: len(rig.remote.probes) == 2)
    assert rig.remote.probes[1] == ([], True)
    assert len(rig.remote.said) == AT_ONCE


async def test_the_refill_leaves_room_for_readers(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.values = [(str(number), entry()) for number in range(200)]
    rig.remote.available = False
    for number in range(100):
        rig.recovery.invalidate_later(f"k{number}", 5)
    await rig.until(lambda: len(rig.remote.said) == 200)
    assert rig.remote.most_under_way == AT_ONCE


async def test_redis_going_away_again_ends_the_refill_and_its_next_return_begins_it_anew(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.values = [(str(number), entry()) for number in range(3 * AT_ONCE)]

    def go(kind: str, key: str, _version: int) -> None:
        if key == "0" and len(rig.remote.probes) == 1:
            rig.remote.available = False

    rig.remote.on_said = go
    rig.remote.available = False
    rig.recovery.wake()
    await rig.until(lambda: ("put", rig.values[-1][0], 1) in rig.remote.said)
    assert rig.remote.probes == [([], False)] * 2
    assert len(rig.remote.said) == AT_ONCE + len(rig.values)


async def test_more_than_can_be_kept_becomes_one_sweep(open_recovery: Open) -> None:
    rig = open_recovery(max_pending=3)
    rig.remote.available = False
    rig.remote.fails = 1
    for number in range(10):
        rig.recovery.invalidate_later(str(number), 5)
        assert rig.recovery.pending <= 3
    await rig.until(lambda: len(rig.remote.probes) == 2)
    assert rig.remote.probes == [([], True)] * 2
    assert rig.recovery.pending == 0


async def test_first_versions_that_find_no_room_are_let_go_and_sweep_nothing(open_recovery: Open) -> None:
    """As an import of very many announces them: there is nothing of theirs in Redis."""
    rig = open_recovery(max_pending=3)
    rig.remote.available = False
    for number in range(10):
        rig.recovery.invalidate_later(str(number), 1)
    await rig.idle()
    assert rig.remote.probes == [([("0", 1), ("1", 1), ("2", 1)], False)]


async def test_a_full_book_still_takes_a_newer_version_of_what_is_in_it(open_recovery: Open) -> None:
    rig = open_recovery(max_pending=2)
    rig.remote.available = False
    for key, version in (("1", 5), ("2", 5), ("1", 6)):
        rig.recovery.invalidate_later(key, version)
    await rig.idle()
    assert rig.remote.probes == [([("1", 6), ("2", 5)], False)]


async def test_what_is_announced_during_a_sweep_is_passed_on_after_it(open_recovery: Open) -> None:
    """The sweep may have been past its key already."""
    rig = open_recovery()
    rig.remote.gate.clear()
    rig.recovery.sweep_later()
    await rig.until(lambda: bool(rig.remote.probes))
    rig.recovery.invalidate_later("1", 5)
    rig.remote.gate.set()
    await rig.idle()
    assert (rig.remote.probes, rig.remote.said) == ([([], True)], [("invalidate", "1", 5)])


async def test_a_sweep_that_failed_is_done_again_though_other_news_came_meanwhile(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.remote.gate.clear()
    rig.remote.fails = 1
    rig.recovery.sweep_later()
    await rig.until(lambda: bool(rig.remote.probes))
    rig.recovery.invalidate_later("1", 5)
    rig.remote.gate.set()
    await rig.idle()
    assert rig.remote.probes == [([], True), ([("1", 5)], True)]


async def test_a_failure_of_our_own_is_logged_and_does_not_leave_the_breaker_open_for_ever(
    open_recovery: Open, caplog: pytest.LogCaptureFixture
) -> None:
    rig = open_recovery()

    def fail(_kind: str, _key: str, _version: int) -> None:
        rig.remote.on_said = lambda _kind, _key, _version: None
        raise LookupError("a defect")

    rig.remote.on_said = fail
    rig.recovery.invalidate_later("1", 5)
    await rig.idle()
    assert rig.remote.said == [("invalidate", "1", 5)] * 2
    assert "a defect" in caplog.text


async def test_nothing_to_do_is_nothing_done(open_recovery: Open) -> None:
    rig = open_recovery()
    rig.values = [("1", entry())]
    rig.recovery.wake()
    await rig.idle()
    assert (rig.remote.said, rig.remote.probes) == ([], [])


@pytest.mark.parametrize("steps", range(0, 30, 2))
async def test_closing_ends_it_at_any_moment(open_recovery: Open, steps: int) -> None:
    rig = open_recovery()
    rig.values = [("9", entry())]
    rig.remote.available = False
    rig.recovery.invalidate_later("1", 5)
    for _ in range(steps):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await rig.recovery.aclose()
        await rig.recovery.aclose()
    assert rig.remote.under_way == 0
