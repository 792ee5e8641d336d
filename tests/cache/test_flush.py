"""Beginning with nothing in hand, as a measurement asks for."""

from __future__ import annotations

from app.cache.memory import MemoryCache
from app.cache.origin import Loaded
from tests.cache.loader_rig import LoaderRig


def rig_with_memory() -> LoaderRig:
    rig = LoaderRig("singleflight")
    rig.loader._memory = MemoryCache(max_entries=10, max_bytes=1_000_000)
    rig.origin.values["1"] = Loaded(b"one", 1)
    return rig


async def test_after_a_flush_and_with_redis_emptied_the_next_read_loads_and_is_one_that_had_to() -> None:
    rig = rig_with_memory()
    await rig.loader.read("1")
    assert (await rig.loader.read("1")).source == "l1"
    rig.memory.entries.clear()
    rig.loader.flush()
    assert rig.loader.fresh("1") is None
    assert (await rig.loader.read("1")).source == "origin"
    assert rig.events.counts["least load"] == rig.origin.ended == 2


async def test_a_flush_alone_leaves_redis_to_answer() -> None:
    rig = rig_with_memory()
    await rig.loader.read("1")
    rig.loader.flush()
    assert (await rig.loader.read("1")).source == "l2"


async def test_who_waits_gets_the_load_under_way_and_who_comes_after_a_flush_another() -> None:
    rig = rig_with_memory()
    rig.origin.hold()
    (before,) = rig.reading()
    await rig.until_loading(1)
    rig.loader.flush()
    (after,) = rig.reading()
    await rig.until_loading(2)
    rig.origin.release()
    assert [(await task).source for task in (before, after)] == ["origin", "origin"]


async def test_what_is_known_to_be_past_stays_so_through_a_flush() -> None:
    rig = rig_with_memory()
    await rig.loader.read("1")
    old = rig.memory.entries["1"]
    rig.loader.changed([("1", 2)])
    rig.loader.flush()
    rig.memory.entries["1"] = old
    rig.origin.values["1"] = Loaded(b"two", 2)
    assert (await rig.loader.read("1")).payload == b"two"
