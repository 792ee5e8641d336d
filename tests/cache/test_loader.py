from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.cache.origin import Loaded
from app.concurrency import keyed_lock, singleflight
from tests.cache.conftest import RemoteRig
from tests.cache.loader_rig import JITTER, TTL_S, LoaderRig, OriginError, settle

MODES = ["none", "mutex", "singleflight"]
N = 20


@pytest.mark.parametrize(("mode", "loads"), [("none", N), ("mutex", 1), ("singleflight", 1)])
async def test_callers_who_all_miss_load_as_often_as_their_protection_lets_them(mode: str, loads: int) -> None:
    rig = LoaderRig(mode)
    rig.origin.values["1"] = Loaded(b"one", 3)
    rig.origin.hold()
    readers = rig.reading(callers=N)
    await rig.until_loading(loads)
    rig.origin.release()
    readings = await asyncio.gather(*readers)
    assert rig.origin.began == loads
    assert {(one.payload, one.version) for one in readings} == {(b"one", 3)}
    assert sum(one.source == "origin" for one in readings) == loads
    assert rig.events.counts["least load"] == 1


async def test_of_a_flight_one_caller_is_its_origin_and_all_others_share_it() -> None:
    rig = LoaderRig("singleflight")
    rig.origin.values["1"] = Loaded(b"one", 1)
    readings = await asyncio.gather(*rig.reading(callers=N))
    assert sorted(one.source for one in readings) == ["origin"] + ["shared"] * (N - 1)
    assert rig.events.counts == {
        "least load": 1,
        "miss": 1,
        "shared": N - 1,
        "answered origin": 1,
        "answered shared": N - 1,
    }


async def test_behind_the_mutex_the_others_find_what_the_first_one_put() -> None:
    rig = LoaderRig("mutex")
    rig.origin.values["1"] = Loaded(b"one", 1)
    readings = await asyncio.gather(*rig.reading(callers=N))
    assert sorted(one.source for one in readings) == ["l2"] * (N - 1) + ["origin"]


@pytest.mark.parametrize("mode", MODES)
async def test_what_was_loaded_is_a_hit_until_its_life_is_over(mode: str) -> None:
    rig = LoaderRig(mode)
    rig.origin.values["1"] = Loaded(b"one", 1)
    assert (await rig.loader.read("1")).source == "origin"
    rig.clock.advance(TTL_S - 0.001)
    hit = await rig.loader.read("1")
    assert hit.source == "l2"
    assert hit.age_s == pytest.approx(TTL_S - 0.001)
    rig.clock.advance(0.001)
    assert (await rig.loader.read("1")).source == "origin"
    assert rig.origin.began == 2
    assert rig.events.counts["least load"] == 2


@pytest.mark.parametrize("draw", [0.0, 0.25, 0.999999])
async def test_jitter_shortens_a_life_by_the_share_drawn(draw: float) -> None:
    rig = LoaderRig("singleflight")
    rig.origin.values["1"] = Loaded(b"one", 1)
    rig.draw = draw
    await rig.loader.read("1")
    life = rig.memory.entries["1"].ttl_s
    assert life == pytest.approx(TTL_S * (1 - JITTER * draw))
    assert TTL_S * (1 - JITTER) <= life <= TTL_S


async def test_a_value_is_as_old_as_the_beginning_of_its_load() -> None:
    rig = LoaderRig("singleflight")
    rig.origin.values["1"] = Loaded(b"one", 1)
    rig.origin.hold()
    (reader,) = rig.reading()
    await rig.until_loading(1)
    rig.clock.advance(2.0)
    rig.origin.release()
    assert (await reader).age_s == 2.0
    assert rig.memory.entries["1"].load_cost_s == 2.0


@pytest.mark.parametrize("mode", MODES)
async def test_that_there_is_no_value_is_answered_and_not_kept(mode: str) -> None:
    rig = LoaderRig(mode)
    assert (await rig.loader.read("1")).payload is None
    rig.origin.values["1"] = Loaded(b"one", 1)
    assert (await rig.loader.read("1")).payload == b"one"


@pytest.mark.parametrize(("mode", "loads"), [("none", N), ("mutex", N), ("singleflight", 1)])
async def test_an_error_of_the_load_reaches_every_caller_and_the_next_one_tries_again(mode: str, loads: int) -> None:
    rig = LoaderRig(mode)
    rig.origin.error = OriginError("the origin is away")
    rig.origin.hold()
    readers = rig.reading(callers=N)
    await rig.until_loading(1)
    rig.origin.release()
    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(one) for one in outcomes] == [OriginError] * N
    assert rig.origin.began == loads
    rig.origin.error = None
    rig.origin.values["1"] = Loaded(b"one", 1)
    assert (await rig.loader.read("1")).payload == b"one"


@pytest.mark.parametrize(("mode", "loads"), [("none", N), ("mutex", N), ("singleflight", 1)])
async def test_without_the_remote_tier_each_protection_is_what_is_left_of_it(mode: str, loads: int) -> None:
    """A mutex only lines callers up where nothing can be found at the end of the line; a flight is shared."""
    rig = LoaderRig(mode)
    rig.memory.down = True
    rig.origin.values["1"] = Loaded(b"one", 1)
    readings = await asyncio.gather(*rig.reading(callers=N))
    assert {one.payload for one in readings} == {b"one"}
    assert rig.origin.began == loads
    assert not rig.memory.entries


@pytest.mark.parametrize("mode", MODES)
async def test_when_all_callers_leave_the_load_is_cancelled_and_the_next_caller_starts_anew(mode: str) -> None:
    rig = LoaderRig(mode)
    rig.origin.values["1"] = Loaded(b"one", 1)
    rig.origin.hold()
    readers = rig.reading(callers=3)
    await rig.until_loading(3 if mode == "none" else 1)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    await settle()
    assert rig.origin.cancelled == rig.origin.began
    rig.origin.release()
    assert (await rig.loader.read("1")).payload == b"one"


@pytest.mark.parametrize("mode", ["mutex", "singleflight"])
async def test_when_the_caller_who_started_the_load_leaves_the_others_are_answered(mode: str) -> None:
    rig = LoaderRig(mode)
    rig.origin.values["1"] = Loaded(b"one", 1)
    rig.origin.hold()
    first, *others = rig.reading(callers=4)
    await rig.until_loading(1)
    first.cancel()
    await settle()
    rig.origin.release()
    readings = await asyncio.gather(*others)
    assert [one.payload for one in readings] == [b"one"] * 3
    # A flight goes on; a lock's holder takes its load along, and the next in line begins one.
    assert rig.origin.began == {"singleflight": 1, "mutex": 2}[mode]


@pytest.mark.parametrize(
    ("mode", "refusal"),
    [("mutex", keyed_lock.TooManyWaitersError), ("singleflight", singleflight.TooManyWaitersError)],
)
async def test_callers_past_the_bound_are_refused_at_once(mode: str, refusal: type[Exception]) -> None:
    rig = LoaderRig(mode, max_waiters=2)
    rig.origin.values["1"] = Loaded(b"one", 1)
    rig.origin.hold()
    readers = rig.reading(callers=5)
    await rig.until_loading(1)
    assert [type(reader.exception()) for reader in readers if reader.done()] == [refusal, refusal]
    rig.origin.release()
    assert sum(not isinstance(one, Exception) for one in await asyncio.gather(*readers, return_exceptions=True)) == 3


@pytest.mark.parametrize("mode", ["mutex", "singleflight"])
async def test_a_caller_waits_no_longer_than_its_bound_and_the_key_is_free_afterwards(mode: str) -> None:
    rig = LoaderRig(mode, wait_timeout_s=0.02)
    rig.origin.values["1"] = Loaded(b"one", 1)
    rig.origin.hold()
    readers = rig.reading(callers=3)
    await rig.until_loading(1)
    waiters = readers if mode == "singleflight" else readers[1:]
    done, _ = await asyncio.wait(waiters, timeout=5.0)
    assert [isinstance(one.exception(), TimeoutError) for one in done] == [True] * len(waiters)
    rig.origin.release()
    assert (await rig.loader.read("1")).payload == b"one"
    await asyncio.gather(*readers, return_exceptions=True)


@pytest.mark.parametrize("mode", MODES)
async def test_a_load_that_began_before_a_write_does_not_put_the_old_value_back(mode: str, rig: RemoteRig) -> None:
    """Interleaving: the load reads version 1; version 2 is written; the load ends and puts what it read."""
    reads = LoaderRig(mode, remote=rig.remote)
    reads.origin.values["1"] = Loaded(b"old", 1)
    reads.origin.hold()
    (reader,) = reads.reading()
    await until(lambda: reads.origin.began == 1)
    await reads.loader.written("1", 2, b"new")
    reads.origin.release()
    assert (await reader).payload == b"old"  # it came before the write
    found = await reads.loader.read("1")
    assert (found.payload, found.version, found.source) == (b"new", 2, "l2")


@pytest.mark.parametrize("mode", MODES)
async def test_a_load_that_began_before_a_deletion_does_not_bring_the_value_back(mode: str, rig: RemoteRig) -> None:
    reads = LoaderRig(mode, remote=rig.remote)
    reads.origin.values["1"] = Loaded(b"old", 1)
    reads.origin.hold()
    (reader,) = reads.reading()
    await until(lambda: reads.origin.began == 1)
    await reads.loader.written("1", 2, None)
    reads.origin.values["1"] = Loaded(None, 2)
    reads.origin.release()
    await reader
    assert (await reads.loader.read("1")).payload is None
    assert await rig.remote.get("1") is None


async def test_what_is_outdated_is_loaded_anew_and_shared_with_no_flight_that_began_before() -> None:
    rig = LoaderRig("singleflight")
    rig.origin.values["1"] = Loaded(b"old", 1)
    rig.origin.hold()
    early = rig.reading()
    await rig.until_loading(1)
    await rig.loader.outdated("1", 2)
    rig.origin.values["1"] = Loaded(b"newest", 5)
    late = rig.reading()
    await rig.until_loading(2)
    rig.origin.release()
    assert [one.payload for one in await asyncio.gather(*early, *late)] == [b"old", b"newest"]
    assert (await rig.loader.read("1")).payload == b"newest"
    assert rig.origin.began == 2


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_outdated_only_up_to_the_value_at_hand_is_not_loaded_again(mode: str) -> None:
    """As where an answer is given again, and nobody has written since."""
    rig = LoaderRig(mode)
    await rig.loader.written("1", 2, b"new")
    await rig.loader.outdated("1", 2)
    assert (await rig.loader.read("1")).payload == b"new"
    assert rig.origin.began == 0


async def test_who_comes_after_a_write_shares_no_flight_that_began_before_it_even_without_redis() -> None:
    rig = LoaderRig("singleflight")
    rig.memory.down = True
    rig.origin.values["1"] = Loaded(b"old", 1)
    rig.origin.hold()
    early = rig.reading(callers=2)
    await rig.until_loading(1)
    rig.origin.values["1"] = Loaded(b"new", 2)
    await rig.loader.written("1", 2, b"new")
    late = rig.reading(callers=2)
    await rig.until_loading(2)
    rig.origin.release()
    assert [one.payload for one in await asyncio.gather(*early)] == [b"old"] * 2
    assert [one.payload for one in await asyncio.gather(*late)] == [b"new"] * 2
    assert rig.origin.began == 2


@pytest.mark.parametrize("mode", MODES)
async def test_the_value_as_it_is_now_is_loaded_where_nothing_announces_changes_and_the_tiers_get_it(mode: str) -> None:
    rig = LoaderRig(mode)
    rig.origin.values["1"] = Loaded(b"old", 1)
    assert (await rig.loader.read("1")).payload == b"old"
    rig.origin.values["1"] = Loaded(b"new", 2)
    assert (await rig.loader.read("1")).payload == b"old"
    now = await rig.loader.current("1")
    assert (now.payload, now.version, now.source) == (b"new", 2, "origin")
    assert (await rig.loader.read("1")).payload == b"new"


async def test_who_comes_after_everything_may_have_changed_shares_no_flight_that_began_before() -> None:
    rig = LoaderRig("singleflight")
    rig.origin.values["1"] = Loaded(b"old", 1)
    rig.origin.hold()
    early = rig.reading()
    await rig.until_loading(1)
    rig.origin.values["1"] = Loaded(b"new", 2)
    rig.clock.advance(0.1)
    rig.loader.everything_changed()
    late = rig.reading()
    await rig.until_loading(2)
    rig.origin.release()
    assert [one.payload for one in await asyncio.gather(*early, *late)] == [b"old", b"new"]


@pytest.mark.parametrize("mode", MODES)
async def test_telling_a_remote_tier_that_is_gone_of_a_write_raises_nothing(mode: str) -> None:
    rig = LoaderRig(mode)
    rig.memory.down = True
    await rig.loader.written("1", 2, b"new")
    await rig.loader.written("1", 3, None)


async def test_a_write_gives_the_value_a_whole_new_life() -> None:
    rig = LoaderRig("singleflight")
    rig.origin.values["1"] = Loaded(b"old", 1)
    await rig.loader.read("1")
    rig.clock.advance(TTL_S - 1)
    await rig.loader.written("1", 2, b"new")
    rig.clock.advance(TTL_S - 1)
    assert (await rig.loader.read("1")).payload == b"new"
    assert rig.origin.began == 1


async def test_closing_waits_for_the_flights_in_the_air_and_then_refuses() -> None:
    rig = LoaderRig("singleflight")
    rig.origin.values["1"] = Loaded(b"one", 1)
    rig.origin.hold()
    readers = rig.reading(callers=3)
    await rig.until_loading(1)
    closing = asyncio.create_task(rig.loader.aclose(5.0))
    await settle()
    assert not closing.done()
    rig.origin.release()
    await closing
    assert [one.payload for one in await asyncio.gather(*readers)] == [b"one"] * 3
    with pytest.raises(singleflight.GroupClosedError):
        await rig.loader.read("1")


async def until(condition: Callable[[], bool]) -> None:
    """Polls, for what depends on a real server's answer."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the state is the test's own
            await asyncio.sleep(0.001)
