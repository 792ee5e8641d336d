from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.cache.floors import Floors
from tests.concurrency.fake_clock import FakeClock

LIFE_S, SKEW_S = 100.0, 1.0
NOW = 5_000.0
"""Wall-clock time."""


class Rig:
    def __init__(self, max_keys: int = 3) -> None:
        self.clock = FakeClock()
        self.floors = Floors(max_keys=max_keys, life_s=LIFE_S, skew_s=SKEW_S, clock=self.clock)

    def allows(self, key: str, version: int, created_at: float = NOW) -> bool:
        return self.floors.allows(key, version, created_at)


def test_without_a_floor_everything_is_allowed() -> None:
    rig = Rig()
    assert rig.allows("1", 0)
    assert rig.floors.least_version("1") == 0
    assert rig.floors.loaded_after == 0


def test_below_its_floor_nothing_of_a_key_is_allowed_and_from_it_on_everything() -> None:
    rig = Rig()
    rig.floors.raise_to("1", 5, NOW)
    assert [rig.allows("1", version) for version in (4, 5, 6)] == [False, True, True]
    assert not rig.allows("1", 4, created_at=NOW + 50)
    assert rig.allows("2", 0)


def test_a_floor_never_falls() -> None:
    rig = Rig()
    rig.floors.raise_to("1", 5, NOW)
    rig.floors.raise_to("1", 4, NOW)
    assert rig.floors.least_version("1") == 5


def test_floors_raised_together_are_those_raised_one_by_one() -> None:
    together, singly = Rig(), Rig()
    versions = [("1", 5), ("2", 1), ("3", 1), ("1", 4), ("2", 7), ("4", 1)]
    for rig in (together, singly):
        rig.floors.raise_to("3", 9, NOW)
    together.floors.raise_each(versions, NOW)
    for key, version in versions:
        singly.floors.raise_to(key, version, NOW)
    for key in "1234":
        assert together.floors.least_version(key) == singly.floors.least_version(key)
    assert together.floors.loaded_after == singly.floors.loaded_after


def test_a_floor_lives_its_life_and_is_then_forgotten() -> None:
    rig = Rig()
    rig.floors.raise_to("1", 5, NOW)
    rig.clock.advance(LIFE_S - 0.1)
    rig.floors.raise_to("2", 5, NOW)
    assert not rig.allows("1", 4)
    rig.clock.advance(0.1)
    rig.floors.raise_to("3", 5, NOW)
    assert rig.allows("1", 4)
    assert len(rig.floors) == 2
    assert rig.floors.loaded_after == 0


def test_a_floor_that_is_told_again_lives_anew_and_goes_last() -> None:
    rig = Rig(max_keys=2)
    rig.floors.raise_to("1", 5, NOW)
    rig.floors.raise_to("2", 5, NOW + 1)
    rig.clock.advance(LIFE_S / 2)
    rig.floors.raise_to("1", 5, NOW + 2)
    rig.floors.raise_to("3", 5, NOW + 3)
    assert rig.floors.least_version("1") == 5
    assert rig.floors.loaded_after == NOW + 1 + SKEW_S


def test_a_floor_that_is_told_again_after_the_clock_was_set_back_stands_for_the_later_moment() -> None:
    rig = Rig(max_keys=1)
    rig.floors.raise_to("1", 5, NOW)
    rig.floors.raise_to("1", 5, NOW - 30)
    rig.floors.raise_to("2", 5, NOW - 30)
    assert not rig.allows("1", 4, created_at=NOW)


def test_one_too_many_costs_what_was_loaded_before_the_oldest_was_raised_and_no_more() -> None:
    rig = Rig(max_keys=2)
    for seconds, key in enumerate("123"):
        rig.floors.raise_to(key, 5, NOW + 10 * seconds)
    assert len(rig.floors) == 2
    assert not rig.allows("1", 4, created_at=NOW)
    assert not rig.allows("9", 4, created_at=NOW + SKEW_S)
    assert rig.allows("9", 0, created_at=NOW + SKEW_S + 0.001)
    assert not rig.allows("2", 4, created_at=NOW + 50)


def test_a_replica_whose_clock_is_ahead_does_not_get_the_past_by() -> None:
    rig = Rig()
    rig.floors.raise_all(NOW)
    assert not rig.allows("1", 9, created_at=NOW + SKEW_S)
    assert rig.allows("1", 9, created_at=NOW + SKEW_S + 0.001)


def test_the_floors_of_keys_hold_beside_the_time_floor() -> None:
    """Were they given up for it, a clock that was set back would let by what they keep out."""
    rig = Rig()
    rig.floors.raise_to("1", 5, NOW)
    rig.floors.raise_all(NOW - 3_600)
    assert not rig.allows("1", 4, created_at=NOW - 1)


def test_the_time_floor_never_falls_while_it_lives() -> None:
    rig = Rig()
    rig.floors.raise_all(NOW)
    rig.floors.raise_all(NOW - 10)
    assert rig.floors.loaded_after == NOW + SKEW_S


def test_the_time_floor_lives_as_long_as_a_floor_so_that_a_clock_once_ahead_does_not_bar_the_cache_for_ever() -> None:
    rig = Rig()
    rig.floors.raise_all(NOW + 1_000_000)
    rig.clock.advance(LIFE_S - 0.1)
    assert not rig.allows("1", 9)
    rig.clock.advance(0.1)
    assert rig.allows("1", 9)
    rig.floors.raise_all(NOW)
    assert rig.floors.loaded_after == NOW + SKEW_S


def test_the_time_floor_for_a_floor_that_had_to_go_lives_as_long_as_that_would_have() -> None:
    rig = Rig(max_keys=1)
    rig.floors.raise_to("1", 5, NOW)
    rig.clock.advance(LIFE_S / 2)
    rig.floors.raise_to("2", 5, NOW + LIFE_S / 2)
    rig.clock.advance(LIFE_S / 2 - 0.1)
    assert not rig.allows("1", 4)
    rig.clock.advance(0.1)
    assert rig.allows("1", 4)
    assert not rig.allows("2", 4)


def test_a_floor_that_had_to_go_does_not_shorten_the_time_floor_that_was_there() -> None:
    rig = Rig(max_keys=1)
    rig.floors.raise_to("1", 5, NOW)
    rig.clock.advance(LIFE_S / 2)
    rig.floors.raise_all(NOW + LIFE_S / 2)
    rig.floors.raise_to("2", 5, NOW + LIFE_S / 2)
    rig.clock.advance(LIFE_S / 2 + 0.1)
    assert not rig.allows("3", 9, created_at=NOW + LIFE_S / 2)


def test_without_room_for_any_floor_the_time_floor_does() -> None:
    rig = Rig(max_keys=0)
    rig.floors.raise_to("1", 5, NOW)
    assert len(rig.floors) == 0
    assert not rig.allows("1", 4)
    assert not rig.allows("2", 4)


class FloorsMachine(RuleBasedStateMachine):
    """The model forgets nothing: what it knows to be past must never be allowed, however little room there is."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(max_keys=2)
        self.told: list[tuple[str, int, float, float]] = []
        self.wall = NOW

    @rule(key=st.sampled_from("abcd"), version=st.integers(1, 5))
    def raise_to(self, key: str, version: int) -> None:
        self.rig.floors.raise_to(key, version, self.wall)
        self.told.append((key, version, self.wall, self.rig.clock.now + LIFE_S))

    @rule()
    def raise_all(self) -> None:
        self.rig.floors.raise_all(self.wall)
        self.told += [(key, 99, self.wall, self.rig.clock.now + LIFE_S) for key in "abcd"]

    @rule(seconds=st.sampled_from([0.5, 10.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)
        self.wall += seconds

    @rule(seconds=st.sampled_from([-30.0, -2.0, 5.0]))
    def the_wall_clock_is_set(self, seconds: float) -> None:
        self.wall += seconds

    @invariant()
    def nothing_past_is_allowed(self) -> None:
        for key, version, moment, ends_at in self.told:
            if self.rig.clock.now < ends_at:
                assert not self.rig.allows(key, version - 1, created_at=moment)
                assert not self.rig.allows(key, version - 1, created_at=moment + SKEW_S)

    @invariant()
    def no_more_are_kept_than_may_be(self) -> None:
        assert len(self.rig.floors) <= 2


FloorsMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestFloors = FloorsMachine.TestCase
