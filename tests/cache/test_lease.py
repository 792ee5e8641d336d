"""How leases go back whose loads have failed. What else a leased fill does is shown on the whole read path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from app.cache.entry import Entry
from app.cache.lease import RETURNED_TOGETHER, LeasedFill, Terms
from app.cache.remote import Grant, RemoteCache, Stored, Taken
from app.cache.wakeups import Wakeups
from app.concurrency.tasks import TaskSet
from app.lab.simulation.recorded_events import RecordedEvents


class OriginDownError(Exception):
    """What every load raises."""


class Remote(RemoteCache):
    """Grants every lease, and takes them back one command after the other, each once it may end."""

    def __init__(self) -> None:
        self.returned: list[tuple[tuple[str, str], ...]] = []
        self.may_end = asyncio.Semaphore(0)
        self.takes = True
        self.puts = 0

    @property
    def is_available(self) -> bool:
        return True

    async def take(self, key: str, token: str, **_: object) -> Taken:
        return Taken(Grant.WON, None)

    async def put(self, key: str, entry: Entry, token: str = "") -> Stored:
        self.puts += 1
        await asyncio.Event().wait()
        return Stored.STORED

    async def release(self, *leases: tuple[str, str]) -> bool:
        self.returned.append(leases)
        await self.may_end.acquire()
        return self.takes


class Fills:
    """Fills that fail, or that load `entry`."""

    def __init__(self, *, limit: int = 10, entry: Entry | None = None) -> None:
        self.remote = Remote()
        self.background = TaskSet(limit=limit)
        tokens: Iterator[int] = iter(range(10**6))

        async def load(key: str) -> Entry:
            if entry is None:
                raise OriginDownError
            return entry

        self.fill = LeasedFill(
            remote=self.remote,
            wakeups=Wakeups(Redis(), "wake", ping_s=1.0, on_state=lambda _is_up: None),  # never started
            load=load,
            background=self.background,
            events=RecordedEvents(),
            failures=(OriginDownError,),
            token=lambda: f"token {next(tokens)}",
        )

    async def fail(self, *keys: str) -> None:
        for key in keys:
            with pytest.raises(OriginDownError):
                await self.fill.obtain(key, Terms)

    async def returned(self) -> list[list[str]]:
        """The keys of each command so far, once nothing more is to be done before the one under way ends."""
        for _ in range(10):
            await asyncio.sleep(0)
        return [[key for key, _ in leases] for leases in self.remote.returned]


async def test_leases_that_come_while_others_are_on_their_way_go_back_together() -> None:
    fills = Fills()
    await fills.fail("1")
    assert await fills.returned() == [["1"]]
    await fills.fail("2", "3", "4")
    assert await fills.returned() == [["1"]]
    fills.remote.may_end.release()
    assert await fills.returned() == [["1"], ["2", "3", "4"]]
    assert [token for leases in fills.remote.returned for _, token in leases] == [f"token {n}" for n in range(4)]
    fills.remote.may_end.release()
    await fills.fail("5")
    assert await fills.returned() == [["1"], ["2", "3", "4"], ["5"]]


async def test_one_command_gives_back_no_more_than_redis_does_quickly() -> None:
    fills = Fills()
    keys = [str(number) for number in range(RETURNED_TOGETHER + 5)]
    await fills.fail("first")
    await fills.returned()
    await fills.fail(*keys)
    for _ in range(3):
        fills.remote.may_end.release()
    assert await fills.returned() == [["first"], keys[:RETURNED_TOGETHER], keys[RETURNED_TOGETHER:]]
    assert len(fills.background) == 0


async def test_leases_that_redis_did_not_take_are_given_back_once_more() -> None:
    fills = Fills()
    fills.remote.takes = False
    await fills.fail("1", "2")
    for _ in range(5):
        fills.remote.may_end.release()
    assert await fills.returned() == [["1", "2"], ["1", "2"]]
    assert len(fills.background) == 0


async def test_leases_that_found_no_room_in_the_background_go_back_with_the_next() -> None:
    fills = Fills(limit=1)
    other = asyncio.Event()
    fills.background.start(other.wait())
    await fills.fail("1", "2")
    assert await fills.returned() == []
    other.set()
    await fills.returned()
    await fills.fail("3")
    assert await fills.returned() == [["1", "2", "3"]]


async def test_who_leaves_while_the_value_is_put_gives_the_lease_back() -> None:
    fills = Fills(entry=Entry(b"value", 1, 0.0, 30.0, 0.1))
    filling = asyncio.create_task(fills.fill.obtain("1", Terms))
    assert await fills.returned() == []
    assert fills.remote.puts == 1
    filling.cancel()
    assert await fills.returned() == [["1"]]
    assert filling.cancelled()


async def test_closing_waits_until_all_have_gone_back() -> None:
    fills = Fills()
    await fills.fail("1")
    await fills.returned()
    await fills.fail("2")
    closing = asyncio.create_task(fills.background.aclose(30.0))
    await fills.returned()
    assert not closing.done()
    fills.remote.may_end.release()
    assert await fills.returned() == [["1"], ["2"]]
    assert not closing.done()
    fills.remote.may_end.release()
    await closing
