"""The rows of `docs/staleness.md` that chance seldom meets, one interleaving each, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cache.world import FAILURES, OriginDownError, Times, World

TIMES = Times()
PAST_GRACE_S = TIMES.coherence_grace + 0.01
"""A loss of announcements that has lasted so long is one in which nothing is trusted without them."""

OpenWorld = Callable[..., World]


@pytest.fixture
def open_world() -> Iterator[OpenWorld]:
    """Opens worlds of mode `full` by default, in which key "1" has its first version, and all have heard of it."""
    worlds: list[World] = []

    def open_(mode: str = "full", times: Times = TIMES, skews: tuple[float, ...] = (0.0, 0.0)) -> World:
        world = World(mode, skews, times)
        worlds.append(world)
        world.origin.commit("1", delete=False, delays=[0.0])
        world.advance(0.01)
        return world

    yield open_
    for world in worlds:
        world.close()


def change(world: World, delay: float = 0.0) -> None:
    """At the origin, by somebody else; announced to all after so long."""
    world.origin.commit("1", delete=False, delays=[delay])


def lose_feeds(world: World) -> None:
    """Of all processes, which notice at once; and nothing is trusted any more."""
    for replica in world.replicas:
        replica.feed.lose(0.0)
    world.advance(PAST_GRACE_S)


def written(world: World, number: int) -> None:
    """A change through a process, acknowledged."""
    write = world.origin.commit("1", delete=False, delays=[0.0])
    value = world.origin.values["1"]
    world.loop.run_until_complete(world.replicas[number].loader.written("1", write.version, value.payload))


def asks_redis(world: World) -> bool:
    """Whether the first process does."""
    return world.replicas[0].remote.is_available


# The announcements come


def test_what_was_announced_is_seen_though_redis_has_forgotten_it_and_holds_the_past(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(0)
    past = dict(world.server.data.strings)
    change(world)
    world.advance(0.01)
    world.server.fail_over(past)
    assert world.read(0).version == 2


@pytest.mark.parametrize("wrong_s", [-100.0, 100.0])
def test_an_announced_change_is_seen_however_far_apart_the_clocks_are(open_world: OpenWorld, wrong_s: float) -> None:
    world = open_world(skews=(0.0, wrong_s))
    for number in (0, 1):
        world.read(number)
    change(world)
    world.advance(0.01)
    assert world.read(1).version == 2
    assert world.read(0).version == 2


def test_who_waits_for_a_slow_load_is_not_given_what_was_invalidated_meanwhile(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(0)
    world.advance(TIMES.ttl + TIMES.grace)  # it will do on error only
    world.origin.load_s = 2 * TIMES.soft_deadline
    read = world.reading(0)
    world.advance(TIMES.soft_deadline / 2)
    change(world)
    world.advance(2.0)
    assert read.result().version == 2


def test_a_load_that_fails_falls_back_on_nothing_that_was_invalidated_meanwhile(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(0)
    world.advance(TIMES.ttl + TIMES.grace)
    memory = world.replicas[0].memory
    assert memory is not None
    memory.clear()  # the value to fall back on is in Redis only
    read = world.reading(0)
    world.advance(TIMES.load / 2)
    change(world)
    world.origin.is_up = False
    world.advance(TIMES.load)
    assert isinstance(read.exception(), OriginDownError)


def test_a_load_that_fails_falls_back_on_what_is_not_known_to_be_past_until_its_time_is_over(
    open_world: OpenWorld,
) -> None:
    world = open_world()
    world.read(0)
    world.origin.is_up = False
    world.advance(TIMES.ttl + TIMES.stale_if_error - 0.9 - TIMES.ttl * TIMES.jitter)
    assert world.read(0).source == "stale"
    world.advance(1.0 + TIMES.ttl * TIMES.jitter)
    with pytest.raises(FAILURES):
        world.read(0)


# They do not come


def test_in_a_short_gap_a_change_is_not_seen_and_after_it_it_is(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(0)
    for replica in world.replicas:
        replica.feed.lose(TIMES.unnoticed)
    change(world)
    world.advance(TIMES.unnoticed + TIMES.coherence_grace)
    assert world.read(0).version == 1
    world.advance(0.01)
    assert world.read(0).version == 2


def test_in_a_long_gap_a_value_in_redis_is_no_better_trusted_than_one_at_hand(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(1)
    lose_feeds(world)
    change(world)
    assert world.read(0).version == 2


def test_in_a_long_gap_a_value_past_its_life_in_redis_is_not_served_in_its_grace(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(1)
    lose_feeds(world)
    change(world)
    world.advance(TIMES.ttl - PAST_GRACE_S)
    assert world.read(0).version == 2


def test_in_a_long_gap_a_change_is_seen_when_the_value_is_as_old_as_the_grace(open_world: OpenWorld) -> None:
    world = open_world()
    lose_feeds(world)
    assert world.read(0).version == 1
    change(world)
    world.advance(TIMES.coherence_grace / 2)
    assert world.read(0).version == 1
    world.advance(TIMES.coherence_grace / 2)
    assert world.read(0).version == 2


def test_in_a_long_gap_with_the_origin_away_what_may_have_changed_is_served_and_marked(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(0)
    lose_feeds(world)
    change(world)
    world.origin.is_up = False
    reading = world.read(0)
    assert (reading.version, reading.source) == (1, "stale")


def test_a_refresh_that_began_before_a_write_answers_nobody_after_it(open_world: OpenWorld) -> None:
    """The process wrote, its value is unknown again as no announcements come, and the old refresh is in hand still."""
    world = open_world(times=Times(load_deadline=5.0, soft_deadline=8.0, wait=10.0))
    world.read(0)
    lose_feeds(world)
    world.origin.load_s = 3.0
    before = world.reading(0)
    world.advance(0.1)
    written(world, 0)
    world.advance(PAST_GRACE_S)
    after = world.reading(0)
    world.advance(6.5)
    assert before.done()
    assert after.result().version == 2


def test_where_anything_may_have_changed_redis_is_not_believed_before_it_is_swept(open_world: OpenWorld) -> None:
    world = open_world()
    world.read(1)
    lose_feeds(world)
    change(world)
    world.replicas[0].feed.catch_up(knows=False)
    assert world.read(0).version == 2


def test_where_anything_may_have_changed_a_date_from_a_fast_clock_is_not_believed(open_world: OpenWorld) -> None:
    world = open_world(skews=(0.0, TIMES.skew))
    lose_feeds(world)
    world.read(1)
    change(world)
    world.replicas[0].feed.catch_up(knows=False)
    assert world.read(0).version == 2


# Redis


def test_redis_is_refilled_with_nothing_that_may_have_changed(open_world: OpenWorld) -> None:
    """A process that starts then trusts what it finds there."""
    world = open_world()
    world.read(0)
    lose_feeds(world)
    change(world)
    world.server.fail_over({})
    world.server.change("down")
    for key in ("2", "3", "4"):
        world.read(0, key)
    assert not asks_redis(world)
    world.server.change("up")
    world.advance(3 * TIMES.redis_open)
    assert asks_redis(world)
    world.replace(1)
    assert world.read(1).version == 2


def test_a_process_that_starts_after_redis_lost_what_it_knew_is_past_a_change_by_one_life_and_its_grace(
    open_world: OpenWorld,
) -> None:
    world = open_world()
    world.read(0)
    past = dict(world.server.data.strings)
    change(world)
    world.advance(0.01)
    world.server.fail_over(past)
    world.replace(1)
    assert world.read(1).version == 1
    world.advance(TIMES.ttl)
    assert world.read(1).source == "stale"
    world.advance(0.1)
    assert world.read(1).version == 2


@pytest.mark.parametrize("mode", ["none", "mutex", "singleflight", "fleet"])
def test_without_announcements_a_change_by_somebody_else_is_seen_after_one_life(
    open_world: OpenWorld, mode: str
) -> None:
    world = open_world(mode)
    world.read(0)
    change(world)
    assert world.read(1).version == 1
    world.advance(TIMES.ttl)
    assert world.read(1).version == 2


@pytest.mark.parametrize("mode", ["none", "mutex", "singleflight", "fleet", "full"])
def test_a_change_through_one_process_is_seen_by_another_when_it_is_acknowledged(
    open_world: OpenWorld, mode: str
) -> None:
    world = open_world(mode)
    world.read(0)
    world.read(1)
    written(world, 0)
    assert world.read(0).version == 2
    assert world.read(1).version == 2
