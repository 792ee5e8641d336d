"""What Redis does in one step, on a real server over both protocols: each branch, and whom it wakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from app.cache.entry import Entry, encode
from app.cache.remote import Grant, RemoteCache, Stored
from tests.cache.conftest import OpenRemote, RemoteRig

CREATED = 1_763_000_000.1234567
"""A date with more digits than a microsecond has."""
TTL_S = 60.0
LEASE_S, FLOOR_S = 10.0, 40.0
FRESH, EXPIRED = CREATED + TTL_S / 2, CREATED + TTL_S
"""Moments of a read."""
END = b"that is all"


def entry(text: str = "value", version: int = 5, created_at: float = CREATED) -> Entry:
    return Entry(text.encode(), version, created_at, TTL_S, 0.01)


class Script:
    """The remote tier on key "1", and what it makes Redis say to those who wait."""

    def __init__(self, rig: RemoteRig, subscription: Any) -> None:
        self.remote: RemoteCache = rig.remote
        self.client: Redis = rig.client
        self.rig = rig
        self.value, self.lease, self.floor = rig.remote.names("1")
        self._subscription = subscription

    async def woken(self) -> list[bytes]:
        """The wake-ups since the last question; what was published before this question has been heard."""
        await self.client.publish(self.remote.channel, END)
        heard: list[bytes] = []
        while True:
            message = await self._subscription.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is not None and message["data"] == END:
                return heard
            if message is not None:
                heard.append(message["data"])

    async def take(self, token: str = "mine", now: float = FRESH, **terms: Any) -> tuple[Grant, Entry | None]:
        taken = await self.remote.take("1", token, now=now, **terms)
        assert taken is not None
        return taken.grant, taken.entry

    async def held_by(self) -> bytes | None:
        holder = await self.client.get(self.lease)
        assert holder is None or isinstance(holder, bytes)
        return holder

    async def stored(self) -> Entry | None:
        return await self.remote.get("1")


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
async def script(request: pytest.FixtureRequest, open_remote: OpenRemote, redis_url: str) -> AsyncIterator[Script]:
    rig = open_remote(redis_url, protocol=request.param, timeout_s=5.0, lease_s=LEASE_S, floor_s=FLOOR_S)
    async with rig.client.pubsub() as subscription:
        await subscription.subscribe(rig.remote.channel)
        script = Script(rig, subscription)
        assert await script.woken() == []
        yield script


# TAKE


async def test_a_fresh_value_is_a_hit_and_the_lease_is_left_alone(script: Script) -> None:
    await script.remote.put("1", entry())
    assert await script.take() == (Grant.HIT, entry())
    assert await script.held_by() is None


async def test_where_there_is_nothing_the_first_wins_and_the_next_learns_how_long_to_wait(script: Script) -> None:
    assert await script.take("mine") == (Grant.WON, None)
    assert 0 < await script.client.pttl(script.lease) <= LEASE_S * 1000
    lost = await script.remote.take("1", "other", now=FRESH)
    assert lost is not None
    assert (lost.grant, lost.entry) == (Grant.LOST, None)
    assert LEASE_S - 5 < lost.remaining_s <= LEASE_S
    assert await script.held_by() == b"mine"


async def test_the_value_is_fresh_until_its_life_ends_and_not_at_its_end(script: Script) -> None:
    await script.remote.put("1", entry())
    assert (await script.take(now=EXPIRED - 0.001))[0] is Grant.HIT
    assert (await script.take(now=EXPIRED))[0] is Grant.WON


async def test_winner_and_losers_are_given_the_stale_value_to_fall_back_on(script: Script) -> None:
    await script.remote.put("1", entry())
    assert await script.take("mine", now=EXPIRED) == (Grant.WON, entry())
    assert await script.take("other", now=EXPIRED) == (Grant.LOST, entry())


async def test_a_fresh_value_is_a_hit_while_another_holds_the_lease(script: Script) -> None:
    await script.take("other")
    await script.remote.put("1", entry())
    assert await script.take() == (Grant.HIT, entry())


async def test_a_refresh_does_not_stop_at_the_very_value_that_it_is_to_replace(script: Script) -> None:
    """The date is compared to its last digit: one rounded on the way would be newer than itself."""
    for created_at in (CREATED, CREATED + 0.0000004, CREATED + 1 / 3):
        seen = entry(created_at=created_at)
        await script.remote.put("1", seen)
        assert await script.take(newer_than=seen.created_at) == (Grant.WON, seen)
        await script.remote.release(("1", "mine"))


async def test_a_refresh_takes_what_was_loaded_since(script: Script) -> None:
    await script.remote.put("1", entry(created_at=CREATED + 0.0000003))
    assert (await script.take(newer_than=CREATED))[0] is Grant.HIT


async def test_a_value_below_the_least_version_asked_for_is_neither_hit_nor_fallback(script: Script) -> None:
    await script.remote.put("1", entry(version=5))
    assert await script.take("a", least_version=5) == (Grant.HIT, entry())
    assert await script.take("b", least_version=6) == (Grant.WON, None)
    assert await script.take("c", least_version=6) == (Grant.LOST, None)


async def test_a_value_below_the_floor_is_neither_hit_nor_fallback(script: Script) -> None:
    """No script leaves one there; a replica that failed over may."""
    await script.remote.put("1", entry(version=5))
    await script.client.set(script.floor, 6)
    assert await script.take("a") == (Grant.WON, None)
    assert await script.take("b") == (Grant.LOST, None)
    await script.client.set(script.floor, 5)
    assert await script.take("c") == (Grant.HIT, entry())


async def test_a_lease_without_an_end_is_taken_over(script: Script) -> None:
    await script.client.set(script.lease, "for ever")
    assert await script.take() == (Grant.WON, None)
    assert await script.held_by() == b"mine"
    assert 0 < await script.client.pttl(script.lease) <= LEASE_S * 1000


async def test_a_lease_of_another_type_is_taken_over(script: Script) -> None:
    await script.client.rpush(script.lease, "a", "list")
    assert await script.take() == (Grant.WON, None)
    assert await script.held_by() == b"mine"


async def test_taking_wakes_nobody(script: Script) -> None:
    await script.take("a")
    await script.take("b")
    await script.remote.put("2", entry())
    await script.remote.take("2", "a", now=FRESH)
    assert await script.woken() == []


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"tc1 5 1.2.3 4.5.6 0 1 0\nx", id="dates that are no numbers"),
        pytest.param(b"tc1 5 . . 0 1 0\nx", id="dates without digits"),
        pytest.param(b"tc1 " + b"9" * 400 + b" 1.0 1.0 0 1 0\nx", id="a huge version"),
        pytest.param(b"tc1 5 9999999999.0 9999999999.0 0 1 0\nx", id="fresh by its header, and altered"),
        pytest.param(encode(entry("some words", version=9))[:-3], id="cut short, of a newer version"),
        pytest.param(bytes(range(256)), id="binary"),
    ],
)
async def test_rubbish_in_the_values_place_is_loaded_over(script: Script, rubbish: bytes) -> None:
    await script.client.set(script.value, rubbish)
    assert await script.take() == (Grant.WON, None)
    assert await script.remote.put("1", entry(), "mine") is Stored.STORED
    assert await script.take() == (Grant.HIT, entry())


async def test_a_value_of_another_type_is_loaded_over(script: Script) -> None:
    await script.client.rpush(script.value, "a", "list")
    assert await script.take() == (Grant.WON, None)
    assert await script.remote.put("1", entry(), "mine") is Stored.STORED
    assert await script.stored() == entry()


async def test_a_floor_that_is_none_counts_as_not_there(script: Script) -> None:
    for write in (
        script.client.rpush(script.floor, "a", "list"),
        script.client.set(script.floor, "nan"),
        script.client.set(script.floor, "inf"),
    ):
        await write
        assert await script.remote.put("1", entry()) is Stored.STORED
        assert await script.take() == (Grant.HIT, entry())
        assert await script.remote.invalidate("1", 6)
        assert await script.client.get(script.floor) == b"6"
        await script.client.delete(script.floor)
    assert not script.rig.events.counts


# PUT


async def test_the_holder_stores_and_its_lease_ends_and_the_waiters_are_woken(script: Script) -> None:
    await script.take("mine")
    assert await script.remote.put("1", entry(), "mine") is Stored.STORED
    assert await script.held_by() is None
    assert await script.woken() == [b"1"]


async def test_a_holder_that_was_replaced_cannot_store_and_leaves_the_new_ones_lease(script: Script) -> None:
    await script.take("mine")
    await script.client.delete(script.lease)
    await script.take("other")
    assert await script.remote.put("1", entry(), "mine") is Stored.FENCED
    assert await script.stored() is None
    assert await script.held_by() == b"other"
    assert await script.woken() == []


async def test_a_holder_whose_lease_has_run_out_cannot_store(script: Script) -> None:
    await script.take("mine")
    await script.client.delete(script.lease)
    assert await script.remote.put("1", entry(), "mine") is Stored.FENCED
    assert await script.stored() is None
    assert await script.woken() == []


async def test_a_lease_of_another_type_fences(script: Script) -> None:
    await script.client.rpush(script.lease, "mine")
    assert await script.remote.put("1", entry(), "mine") is Stored.FENCED
    assert not script.rig.events.counts


async def test_below_the_floor_nothing_is_stored_but_the_waiters_are_woken_to_load_again(script: Script) -> None:
    await script.client.set(script.floor, 6)
    await script.take("mine")
    assert await script.remote.put("1", entry(version=5), "mine") is Stored.PAST
    assert (await script.stored(), await script.held_by()) == (None, None)
    assert await script.woken() == [b"1"]
    assert await script.remote.put("1", entry(version=6)) is Stored.STORED


async def test_the_knowledge_that_there_is_nothing_is_refused_where_an_insert_has_set_a_floor(script: Script) -> None:
    await script.remote.invalidate("1", 1)
    assert await script.remote.put("1", Entry(None, 0, CREATED, TTL_S, 0.0)) is Stored.PAST


@pytest.mark.parametrize(
    ("version", "created_at", "outcome"),
    [
        pytest.param(4, CREATED + 9, Stored.PAST, id="older version, loaded later"),
        pytest.param(5, CREATED - 9, Stored.PAST, id="same version, loaded earlier"),
        pytest.param(5, CREATED, Stored.STORED, id="the same"),
        pytest.param(5, CREATED + 9, Stored.STORED, id="same version, loaded later"),
        pytest.param(6, CREATED - 9, Stored.STORED, id="newer version, loaded earlier"),
    ],
)
async def test_the_newest_stays_by_version_and_then_by_the_time_of_its_load(
    script: Script, version: int, created_at: float, outcome: Stored
) -> None:
    await script.remote.put("1", entry("there", version=5))
    put = entry("put", version, created_at)
    assert await script.remote.put("1", put) is outcome
    assert await script.stored() == (put if outcome is Stored.STORED else entry("there"))


async def test_a_put_that_is_past_ends_its_own_lease_and_wakes(script: Script) -> None:
    await script.take("mine")
    await script.remote.put("1", entry("new", version=6))
    await script.woken()
    assert await script.remote.put("1", entry("old"), "mine") is Stored.PAST
    assert await script.held_by() is None
    assert await script.woken() == [b"1"]


async def test_a_value_put_without_a_lease_wakes_those_who_wait_for_a_holder_and_leaves_it_its_lease(
    script: Script,
) -> None:
    await script.take("other")
    assert await script.remote.put("1", entry()) is Stored.STORED
    assert await script.held_by() == b"other"
    assert await script.woken() == [b"1"]


async def test_a_value_put_where_nobody_can_be_waiting_wakes_nobody(script: Script) -> None:
    assert await script.remote.put("1", entry()) is Stored.STORED
    assert await script.woken() == []


async def test_a_put_that_changes_nothing_wakes_nobody(script: Script) -> None:
    await script.take("other")
    await script.client.set(script.floor, 9)
    assert await script.remote.put("1", entry()) is Stored.PAST
    assert await script.woken() == []


async def test_a_value_is_kept_for_its_life_and_as_long_as_it_may_be_fallen_back_on(
    open_remote: OpenRemote, redis_url: str
) -> None:
    rig = open_remote(redis_url, timeout_s=5.0, kept_past_expiry_s=100.0)
    await rig.remote.put("1", entry())
    assert (TTL_S + 95) * 1000 < await rig.client.pttl(rig.remote.names("1")[0]) <= (TTL_S + 100) * 1000


# RELEASE


async def test_a_lease_given_back_is_free_and_wakes(script: Script) -> None:
    await script.take("mine")
    await script.remote.release(("1", "mine"))
    assert await script.held_by() is None
    assert await script.woken() == [b"1"]


async def test_only_the_holder_can_give_a_lease_back(script: Script) -> None:
    await script.take("other")
    await script.remote.release(("1", "mine"))
    assert await script.held_by() == b"other"
    await script.remote.release(("2", "mine"))
    assert await script.woken() == []


async def test_of_several_leases_those_that_are_held_are_given_back(script: Script) -> None:
    await script.take("mine")
    assert await script.remote.take("2", "other", now=FRESH) is not None
    assert await script.remote.take("3", "third", now=FRESH) is not None
    await script.remote.release(("1", "mine"), ("2", "mine"), ("3", "third"), ("4", "none"))
    assert await script.woken() == [b"1", b"3"]
    assert [await script.client.get(script.remote.names(key)[1]) for key in "123"] == [None, b"other", None]


async def test_giving_back_a_lease_of_another_type_is_no_error(script: Script) -> None:
    await script.client.rpush(script.lease, "mine")
    await script.remote.release(("1", "mine"))
    assert not script.rig.events.counts


# INVALIDATE


async def test_an_invalidation_removes_what_is_older_and_keeps_it_out_for_the_floors_life(script: Script) -> None:
    await script.remote.put("1", entry(version=5))
    assert await script.remote.invalidate("1", 6)
    assert await script.stored() is None
    assert (FLOOR_S - 5) * 1000 < await script.client.pttl(script.floor) <= FLOOR_S * 1000
    assert await script.remote.put("1", entry(version=5)) is Stored.PAST
    assert await script.remote.put("1", entry(version=6)) is Stored.STORED


async def test_an_invalidation_revokes_the_lease_so_that_a_load_begun_before_cannot_store(script: Script) -> None:
    await script.take("mine")
    assert await script.remote.invalidate("1", 6)
    assert await script.held_by() is None
    assert await script.woken() == [b"1"]
    assert await script.remote.put("1", entry(version=5), "mine") is Stored.FENCED


async def test_an_invalidation_wakes_nobody_where_nobody_waits(script: Script) -> None:
    await script.remote.put("1", entry(version=5))
    assert await script.remote.invalidate("1", 6)
    assert await script.woken() == []


@pytest.mark.parametrize("stored", [6, 7])
async def test_a_value_that_is_new_enough_stays_and_so_does_the_lease(script: Script, stored: int) -> None:
    await script.take("other")
    await script.remote.put("1", entry(version=stored))
    await script.woken()
    assert await script.remote.invalidate("1", 6)
    assert await script.stored() == entry(version=stored)
    assert await script.held_by() == b"other"
    assert await script.woken() == []
    assert await script.client.get(script.floor) == b"6"


async def test_what_every_replica_says_is_done_once(script: Script) -> None:
    """A second time, it would revoke the lease of the load that the first brought about."""
    await script.remote.put("1", entry(version=5))
    await script.remote.invalidate("1", 6)
    assert await script.take("mine") == (Grant.WON, None)
    await script.woken()
    for _ in range(8):
        assert await script.remote.invalidate("1", 6)
    assert await script.held_by() == b"mine"
    assert await script.woken() == []


async def test_a_floor_never_falls_and_rises(script: Script) -> None:
    await script.remote.invalidate("1", 10)
    await script.remote.invalidate("1", 9)
    assert await script.client.get(script.floor) == b"10"
    await script.remote.invalidate("1", 11)
    assert await script.client.get(script.floor) == b"11"


async def test_rubbish_and_other_types_are_removed_by_an_invalidation(script: Script) -> None:
    await script.client.rpush(script.value, "a", "list")
    await script.client.rpush(script.lease, "a", "list")
    await script.client.rpush(script.floor, "a", "list")
    assert await script.remote.invalidate("1", 6)
    assert await script.client.keys() == [script.floor.encode()]
    await script.client.set(script.value, "rubbish")
    assert await script.remote.invalidate("1", 7)
    assert await script.client.keys() == [script.floor.encode()]
    assert not script.rig.events.counts


# Names


async def test_a_keys_names_lie_in_one_slot_of_a_cluster_and_no_two_keys_share_any(script: Script) -> None:
    names = script.remote.names("17")
    assert names == ("t:1:{17}", "t:1:{17}:lease", "t:1:{17}:floor")
    assert len({key_slot(name.encode()) for name in names}) == 1
    assert not {*names} & {*script.remote.names("1")}
    assert script.remote.channel not in names
