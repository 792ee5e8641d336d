from __future__ import annotations

import gc
import tracemalloc

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.api.http.hits import HitPath
from app.cache.entry import Entry, decode, encode
from app.cache.memory import OVERHEAD_BYTES, MemoryCache
from app.telemetry.metrics import Metrics


def entry(text: str = "x", version: int = 1, created_at: float = 1_000.0) -> Entry:
    return Entry(text.encode(), version, created_at, ttl_s=30.0, load_cost_s=0.01)


def cache(max_entries: int = 100, max_bytes: int = 10**9) -> MemoryCache:
    return MemoryCache(max_entries=max_entries, max_bytes=max_bytes)


def keys(memory: MemoryCache) -> list[str]:
    """The least recently read first."""
    return [key for key, _ in memory.entries()][::-1]


def test_what_was_put_is_got_with_its_dates_at_hand() -> None:
    memory = cache()
    assert memory.put("1", entry("one", version=7, created_at=500.0))
    slot = memory.get("1")
    assert slot is not None
    assert (slot.entry, slot.payload, slot.version) == (entry("one", 7, 500.0), b"one", 7)
    assert (slot.created_at, slot.expires_at, slot.wire) == (500.0, 530.0, None)
    assert memory.get("2") is None


def test_the_knowledge_that_there_is_no_value_is_kept_as_that() -> None:
    memory = cache()
    memory.put("1", Entry(None, 1, 0.0, 30.0, 0.0))
    slot = memory.get("1")
    assert slot is not None
    assert slot.entry.payload is None


def test_what_was_made_ready_of_a_value_stays_with_it_and_goes_with_it() -> None:
    memory = cache()
    memory.put("1", entry())
    slot = memory.get("1")
    assert slot is not None
    slot.wire = "ready"
    again = memory.get("1")
    assert again is slot
    memory.put("1", entry(version=2))
    replaced = memory.get("1")
    assert replaced is not None
    assert replaced.wire is None


@pytest.mark.parametrize(
    ("version", "created_at", "kept"),
    [(2, 0.0, True), (1, 1_001.0, True), (1, 1_000.0, True), (1, 999.0, False), (0, 9_999.0, False)],
)
def test_the_newest_stays_by_version_and_then_by_the_time_of_its_load(
    version: int, created_at: float, kept: bool
) -> None:
    memory = cache()
    memory.put("1", entry("there", version=1))
    assert memory.put("1", entry("put", version, created_at)) is kept
    slot = memory.get("1")
    assert slot is not None
    assert slot.payload == (b"put" if kept else b"there")
    assert len(memory) == 1


def test_the_least_recently_read_goes_first() -> None:
    memory = cache(max_entries=3)
    for key in "abc":
        memory.put(key, entry())
    memory.get("a")
    memory.put("d", entry())
    assert keys(memory) == ["c", "a", "d"]


def test_putting_counts_as_reading_but_a_put_that_is_refused_does_not() -> None:
    memory = cache(max_entries=2)
    memory.put("a", entry(version=2))
    memory.put("b", entry())
    memory.put("a", entry(version=1))
    assert keys(memory) == ["a", "b"]
    memory.put("a", entry(version=3))
    assert keys(memory) == ["b", "a"]


def test_as_many_go_as_make_room_for_a_large_one() -> None:
    memory = cache(max_bytes=4 * (OVERHEAD_BYTES + 10))
    for key in "abcd":
        memory.put(key, entry("x" * 10))
    memory.put("e", entry("x" * (OVERHEAD_BYTES + 30)))
    assert keys(memory) == ["d", "e"]


def test_what_is_larger_than_all_the_room_is_not_kept_and_pushes_nobody_out() -> None:
    memory = cache(max_bytes=2 * OVERHEAD_BYTES)
    memory.put("a", entry())
    assert not memory.put("b", entry("x" * 2 * OVERHEAD_BYTES))
    assert keys(memory) == ["a"]
    assert memory.put("b", entry("x" * (OVERHEAD_BYTES - 1)))
    assert not memory.put("b", entry("x" * (2 * OVERHEAD_BYTES), version=1, created_at=0.0))


def test_what_is_too_large_takes_along_the_older_one_that_it_should_have_replaced() -> None:
    memory = cache(max_bytes=2 * OVERHEAD_BYTES)
    memory.put("a", entry(version=1))
    assert not memory.put("a", entry("x" * 2 * OVERHEAD_BYTES, version=2))
    assert (len(memory), memory.size_bytes) == (0, 0)


def test_only_what_is_older_is_dropped_for_a_version() -> None:
    memory = cache()
    memory.put("1", entry(version=5))
    assert not memory.drop_older("1", 5)
    assert memory.drop_older("1", 6)
    assert not memory.drop_older("1", 6)
    assert memory.get("1") is None


def test_what_is_dropped_leaves_nothing() -> None:
    memory = cache()
    for key in "abc":
        memory.put(key, entry())
    memory.drop("a")
    memory.drop("a")
    assert memory.size_bytes == 2 * (OVERHEAD_BYTES + 1)
    memory.clear()
    assert (len(memory), memory.size_bytes, keys(memory)) == (0, 0, [])


def test_the_entries_are_those_at_the_call_whatever_comes_and_goes_meanwhile() -> None:
    memory = cache()
    for key in "abc":
        memory.put(key, entry())
    found = memory.entries()
    next(found)
    memory.clear()
    memory.put("d", entry())
    assert [key for key, _ in found] == ["b", "a"]


@pytest.mark.parametrize("size", [0, 100, 2_000])
def test_the_estimate_is_within_a_quarter_of_the_memory_that_entries_take_with_their_responses_ready(size: int) -> None:
    count = 5_000
    hits = HitPath(lambda _: None, cache_control="max-age=5", metrics=Metrics(mode="full", version="1", ttl_s=30.0))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        memory = cache(max_entries=count)
        hits._fresh = memory.get
        for number in range(count):
            # As it comes from Redis: no object in it is shared with another's.
            stored = Entry(b"x" * size, number, 1.7e9 + number / 7, 30.0 + number / 9, 0.01 + number / 11)
            memory.put(str(number + 1), decode(encode(stored)))
            hits.response({"method": "GET", "query_string": b"id=%d" % (number + 1), "headers": []})
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    slot = memory.get("1")
    assert slot is not None
    assert slot.wire is not None
    assert 0.75 <= (after - before) / memory.size_bytes <= 1.25


class MemoryMachine(RuleBasedStateMachine):
    """The model is a list of what is kept, the least recently read first."""

    MOST, MOST_BYTES = 3, 3 * OVERHEAD_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.memory = cache(self.MOST, self.MOST_BYTES)
        self.model: list[tuple[str, Entry]] = []

    def there(self, key: str) -> Entry | None:
        return dict(self.model).get(key)

    def drop(self, key: str) -> None:
        self.model = [one for one in self.model if one[0] != key]

    def size(self) -> int:
        return sum(OVERHEAD_BYTES + len(kept.payload or b"") for _, kept in self.model)

    @rule(
        key=st.sampled_from("abcde"),
        version=st.integers(1, 3),
        created_at=st.sampled_from([1.0, 2.0]),
        size=st.none() | st.sampled_from([0, 1, OVERHEAD_BYTES, 2 * OVERHEAD_BYTES, 2 * OVERHEAD_BYTES + 1]),
    )
    def put(self, key: str, version: int, created_at: float, size: int | None) -> None:
        new = Entry(None if size is None else b"x" * size, version, created_at, 30.0, 0.0)
        there = self.there(key)
        if there is not None and (there.version, there.created_at) > (version, created_at):
            assert not self.memory.put(key, new)
            return
        self.drop(key)
        fits = OVERHEAD_BYTES + (size or 0) <= self.MOST_BYTES
        assert self.memory.put(key, new) is fits
        if fits:
            self.model.append((key, new))
        while len(self.model) > self.MOST or self.size() > self.MOST_BYTES:
            del self.model[0]

    @rule(key=st.sampled_from("abcde"))
    def get(self, key: str) -> None:
        slot, there = self.memory.get(key), self.there(key)
        assert (slot and slot.entry) == there
        if there is not None:
            self.drop(key)
            self.model.append((key, there))

    @rule(key=st.sampled_from("abcde"), version=st.integers(1, 4))
    def drop_older(self, key: str, version: int) -> None:
        there = self.there(key)
        past = there is not None and there.version < version
        assert self.memory.drop_older(key, version) is past
        if past:
            self.drop(key)

    @invariant()
    def the_same_is_kept_in_the_same_order(self) -> None:
        assert list(self.memory.entries()) == self.model[::-1]
        assert len(self.memory) == len(self.model)
        assert self.memory.size_bytes == self.size()


MemoryMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestMemory = MemoryMachine.TestCase
