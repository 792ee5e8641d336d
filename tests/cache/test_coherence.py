from __future__ import annotations

from app.cache.coherence import Coherence
from app.cache.entry import Entry
from tests.concurrency.fake_clock import FakeClock

GRACE_S = 1.0


def coherence(clock: FakeClock, expected: bool = True) -> Coherence:
    return Coherence(expected=expected, grace_s=GRACE_S, clock=clock)


def test_until_changes_are_announced_they_may_be_missed() -> None:
    clock = FakeClock()
    state = coherence(clock)
    assert not state.is_up
    clock.advance(GRACE_S + 0.1)
    assert state.trusted_for_s() == GRACE_S


def test_while_changes_are_announced_a_value_is_trusted_for_its_life() -> None:
    clock = FakeClock()
    state = coherence(clock)
    state.regained()
    clock.advance(10_000)
    assert state.is_up
    assert state.trusted_for_s() is None


def test_a_loss_changes_nothing_up_to_the_grace_and_then_values_are_trusted_for_so_long_from_their_load() -> None:
    clock = FakeClock()
    state = coherence(clock)
    state.regained()
    state.lost()
    assert not state.is_up
    clock.advance(GRACE_S)
    assert state.trusted_for_s() is None
    clock.advance(0.001)
    assert state.trusted_for_s() == GRACE_S


def test_what_is_told_again_during_a_loss_does_not_begin_the_grace_anew() -> None:
    clock = FakeClock()
    state = coherence(clock)
    state.regained()
    for _ in range(5):
        state.lost()
        clock.advance(GRACE_S / 2)
    assert state.trusted_for_s() == GRACE_S


def test_trust_comes_back_at_once_and_the_next_loss_has_a_grace_of_its_own() -> None:
    clock = FakeClock()
    state = coherence(clock)
    clock.advance(100)
    state.regained()
    assert state.trusted_for_s() is None
    state.lost()
    clock.advance(GRACE_S)
    assert state.trusted_for_s() is None


def test_without_a_grace_a_loss_ends_trust_with_the_load() -> None:
    clock = FakeClock()
    state = Coherence(expected=True, grace_s=0.0, clock=clock)
    state.lost()
    clock.advance(0.001)
    assert state.trusted_for_s() == 0.0


def test_where_nothing_announces_changes_the_life_is_the_only_bound_whatever_is_said() -> None:
    clock = FakeClock()
    state = coherence(clock, expected=False)
    state.lost()
    clock.advance(100)
    assert state.is_up
    assert state.trusted_for_s() is None


def test_of_what_is_held_only_what_is_fresh_and_known_to_be_the_origins_may_be_handed_on() -> None:
    clock = FakeClock()
    state = coherence(clock)
    now = 5_000.0
    just_loaded, older, expired = (
        (name, Entry(b"x", 1, now - age_s, 30.0, 0.0)) for name, age_s in (("new", 0.5), ("old", 2.0), ("past", 30.0))
    )
    held = [just_loaded, older, expired]
    state.regained()
    assert state.trusted(held, now) == [just_loaded, older]
    state.lost()
    assert state.trusted(held, now) == [just_loaded, older]
    clock.advance(GRACE_S + 0.1)
    assert state.trusted(held, now) == [just_loaded]
