"""The hub: what each watcher is told, at what price, in every interleaving of changes, reads and takes."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from app.domain.errors import OverloadedError, StoppingError, StorageUnavailableError
from app.watching import watches as watches_module
from app.watching.watch import Watch
from app.watching.watches import LOADS, RETRY_MOST_S, WOKEN_A_TURN
from tests.watching.source import DOWN, FakeChange, Rig, plain

CALL = contextvars.ContextVar("call", default="none")


def taken_at_once(watch: Watch) -> tuple[int, int, int]:
    news = watch.take()
    assert news is not None
    assert watch.take() is None
    return plain(news)


async def test_the_state_now_is_told_first_and_then_each_change(rig: Rig) -> None:
    rig.source.versions[1] = 7
    watch = rig.watch(1)
    assert await rig.taken(watch) == [(1, 7, 0)]
    rig.change(1)
    assert await rig.taken(watch) == [(1, 8, 0)]
    rig.change(1)
    assert await rig.taken(watch) == [(1, 9, 0)]


async def test_an_id_that_never_was_is_told_and_then_its_making(rig: Rig) -> None:
    watch = rig.watch(1)
    assert await rig.taken(watch) == [(1, 0, 0)]
    rig.change(1)
    assert await rig.taken(watch) == [(1, 1, 0)]


async def test_a_change_costs_one_read_however_many_watch(rig: Rig) -> None:
    watches = [rig.watch(1) for _ in range(1_000)]
    await rig.settle()
    assert {taken_at_once(watch) for watch in watches} == {(1, 0, 0)}
    assert rig.source.reads == [1]
    rig.change(1)
    await rig.settle()
    assert {taken_at_once(watch) for watch in watches} == {(1, 1, 0)}
    assert rig.source.reads == [1, 1]
    assert rig.events.tellings == 2_000


async def test_who_joins_while_the_state_is_read_or_after_shares_that_read(rig: Rig) -> None:
    rig.source.held.add(1)
    first = rig.watch(1)
    await rig.settle()
    second = rig.watch(1)
    assert await rig.taken(second) == []
    rig.source.let_go(1)
    third = rig.watch(1)
    for watch in (first, second, third, rig.watch(1)):
        assert await rig.taken(watch) == [(1, 0, 0)]
    assert rig.source.reads == [1]


async def test_a_slow_watcher_gets_the_newest_state_and_how_many_versions_it_missed(rig: Rig) -> None:
    slow, quick = rig.watch(1, 2), rig.watch(1)
    assert await rig.taken(slow) == [(1, 0, 0), (2, 0, 0)]
    for version in range(1, 6):
        rig.change(1)
        assert (await rig.taken(quick))[-1] == (1, version, 0)
    rig.change(2)
    assert await rig.taken(slow) == [(1, 5, 4), (2, 1, 0)]
    assert rig.events.skips == 4


async def test_what_was_read_before_an_announcement_that_comes_meanwhile_is_not_told_but_read_again(rig: Rig) -> None:
    watch = rig.watch(1)
    assert await rig.taken(watch) == [(1, 0, 0)]
    rig.source.held.add(1)
    rig.change(1)
    await rig.settle()
    rig.change(1)
    await rig.settle()
    rig.source.let_go(1)
    assert await rig.taken(watch) == [(1, 2, 1)]
    assert rig.source.reads == [1, 1, 1]
    assert rig.pauses == []


async def test_a_change_between_the_begin_of_the_watch_and_its_first_read_is_not_lost(rig: Rig) -> None:
    rig.source.held.add(1)
    watch = rig.watch(1)
    await rig.settle()
    rig.change(1)
    rig.source.let_go(1)
    assert await rig.taken(watch) == [(1, 1, 0)]


async def test_a_change_that_is_read_before_it_is_announced_is_told_once(rig: Rig) -> None:
    rig.write(1)
    watch = rig.watch(1)
    assert await rig.taken(watch) == [(1, 1, 0)]
    rig.hub.changed([FakeChange(1, 1)])
    rig.hub.changed([FakeChange(1, 1)])
    assert await rig.taken(watch) == []
    assert rig.source.reads == [1]


async def test_an_older_announcement_after_a_newer_one_is_nothing(rig: Rig) -> None:
    watch = rig.watch(1)
    await rig.taken(watch)
    rig.source.versions[1] = 5
    rig.hub.changed([FakeChange(1, 5)])
    assert await rig.taken(watch) == [(1, 5, 4)]
    rig.hub.changed([FakeChange(1, 3)])
    assert await rig.taken(watch) == []


async def test_a_tier_that_holds_on_to_what_is_past_is_asked_again_after_pauses_and_its_value_never_told(
    rig: Rig,
) -> None:
    rig.source.versions[1] = 4
    watch = rig.watch(1)
    assert await rig.taken(watch) == [(1, 4, 0)]
    rig.hub.changed([FakeChange(1, 5)])
    for _ in range(5):
        assert await rig.taken(watch) == []
        rig.end_pauses()
    assert len(rig.pauses) == len(rig.source.reads) - 2  # neither the first read nor its first repetition
    rig.source.versions[1] = 5
    rig.end_pauses()
    assert await rig.taken(watch) == [(1, 5, 0)]


async def test_a_change_whose_read_fails_is_told_later_and_the_pauses_grow_to_a_bound(rig: Rig) -> None:
    watch = rig.watch(1)
    await rig.taken(watch)
    rig.source.errors = [DOWN() for _ in range(12)]
    rig.change(1)
    for count in range(1, 13):
        assert await rig.taken(watch) == []
        assert len(rig.pauses) == count
        rig.end_pauses()
    assert await rig.taken(watch) == [(1, 1, 0)]
    assert rig.events.failures == 12
    assert all(0 < pause <= RETRY_MOST_S for pause in rig.pauses)
    assert rig.pauses[0] < 0.1 < rig.pauses[-1]
    rig.source.errors = [DOWN()]
    rig.change(1)
    await rig.settle()
    assert rig.pauses[-1] < 0.1  # counted anew


async def test_a_bug_in_a_read_is_logged_and_does_not_end_the_watches(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    watch = rig.watch(1)
    await rig.taken(watch)
    rig.source.errors = [ValueError("odd")]
    rig.change(1)
    await rig.settle()
    assert "reading template 1 for its watchers failed" in caplog.text
    rig.end_pauses()
    assert await rig.taken(watch) == [(1, 1, 0)]


async def test_a_first_state_that_cannot_be_read_ends_the_watch_that_wants_so_and_no_other(rig: Rig) -> None:
    rig.source.errors = [DOWN(3.0)]
    patient, hasty = rig.watch(1), rig.watch(1, fails_fast=True)
    await rig.settle()
    with pytest.raises(StorageUnavailableError) as caught:
        hasty.take()
    assert caught.value.retry_after_s == 3.0
    hasty.close()
    rig.end_pauses()
    assert await rig.taken(patient) == [(1, 0, 0)]


async def test_a_watch_that_was_told_a_first_state_outlives_reads_that_fail(rig: Rig) -> None:
    watch = rig.watch(1, fails_fast=True)
    await rig.taken(watch)
    rig.source.errors = [DOWN()]
    rig.change(1)
    assert await rig.taken(watch) == []
    rig.end_pauses()
    assert await rig.taken(watch) == [(1, 1, 0)]


async def test_where_everything_may_have_changed_all_is_read_again_and_what_has_changed_is_told(rig: Rig) -> None:
    watch = rig.watch(1, 2, 3)
    await rig.taken(watch)
    rig.write(2)
    rig.write(2)
    rig.hub.everything_changed()
    assert await rig.taken(watch) == [(2, 2, 1)]
    assert sorted(rig.source.reads) == [1, 1, 2, 2, 3, 3]


async def test_a_read_that_began_before_everything_may_have_changed_is_not_told(rig: Rig) -> None:
    rig.source.held.add(1)
    watch = rig.watch(1)
    await rig.settle()
    rig.write(1)
    rig.source.held.clear()
    rig.hub.everything_changed()
    assert await rig.taken(watch) == [(1, 1, 0)]
    assert rig.source.cancelled == [1]


async def test_versions_that_begin_anew_end_the_watches_that_were_told_higher_ones(rig: Rig) -> None:
    rig.source.versions.update({1: 9, 2: 9})
    both, other = rig.watch(1, 2), rig.watch(2)
    await rig.taken(both)
    await rig.taken(other)
    rig.source.versions[1] = 2
    rig.hub.everything_changed()
    await rig.settle()
    with pytest.raises(StorageUnavailableError):
        both.take()
    assert await rig.taken(other) == []
    assert await rig.taken(rig.watch(1)) == [(1, 2, 0)]


async def test_the_last_watcher_of_an_id_takes_the_read_along_and_others_leave_it_alone(rig: Rig) -> None:
    rig.source.held.add(1)
    first, last = rig.watch(1), rig.watch(1)
    await rig.settle()
    first.close()
    await rig.settle()
    assert rig.source.cancelled == []
    last.close()
    await rig.settle()
    assert rig.source.cancelled == [1]
    assert (len(rig.hub), rig.hub.ids) == (0, 0)


async def test_who_watches_again_while_a_read_unwinds_gets_one_of_its_own(rig: Rig) -> None:
    rig.source.held.add(1)
    gone = rig.watch(1)
    await rig.settle()
    gone.close()
    watch = rig.watch(1)
    await rig.settle()
    rig.source.let_go(1)
    assert await rig.taken(watch) == [(1, 0, 0)]
    assert rig.source.reads == [1, 1]


@pytest.mark.parametrize("stage", ["at once", "while read", "untaken", "told", "while a change is read", "in a pause"])
async def test_a_watch_that_closes_at_any_stage_leaves_nothing(rig: Rig, stage: str) -> None:
    if stage == "while read":
        rig.source.held.add(1)
    watch = rig.watch(1, 2)
    if stage != "at once":
        await rig.settle()
    if stage not in {"at once", "while read", "untaken"}:
        await rig.taken(watch)
    if stage == "while a change is read":
        rig.source.held.add(1)
        rig.change(1)
        await rig.settle()
    if stage == "in a pause":
        rig.source.errors = [DOWN()]
        rig.change(1)
        await rig.settle()
    watch.close()
    watch.close()
    await rig.settle()
    hub = rig.hub
    assert (len(hub), hub.ids, hub._topics, hub._kept, hub._kept_bytes) == (0, 0, {}, {}, 0)
    assert (hub._loading, hub._changed, hub._asked) == (set(), {}, {})
    rig.change(1)
    await rig.settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_is_watched_no_more_is_not_told_and_watched_again_it_is_told_anew(rig: Rig) -> None:
    watch = rig.watch(1, 2)
    await rig.taken(watch)
    rig.change(1, 2)
    await rig.settle()
    watch.remove([1, 1, 77])
    assert await rig.taken(watch) == [(2, 1, 0)]
    rig.change(1)
    assert await rig.taken(watch) == []
    watch.add([1, 2])
    assert await rig.taken(watch) == [(2, 1, 0), (1, 2, 0)]


async def test_the_news_of_what_was_added_are_settled_once_a_state_of_each_was_told(rig: Rig) -> None:
    rig.source.held.add(2)
    watch = rig.watch(1, 2)
    assert not watch.is_settled
    assert await rig.taken(watch) == [(1, 0, 0)]
    assert not watch.is_settled
    rig.source.let_go(2)
    assert await rig.taken(watch) == [(2, 0, 0)]
    assert watch.is_settled


async def test_while_changes_may_be_missed_watches_stay_and_no_new_one_begins(rig: Rig) -> None:
    watch = rig.watch(1)
    await rig.taken(watch)
    rig.hub.feed_lost()
    rig.write(1)
    with pytest.raises(StorageUnavailableError):
        rig.watch(2)
    assert await rig.taken(watch) == []
    rig.hub.changed([FakeChange(1, 1)])
    rig.hub.feed_caught_up()
    assert await rig.taken(watch) == [(1, 1, 0)]
    assert await rig.taken(rig.watch(2)) == [(2, 0, 0)]


async def test_closing_ends_all_watches_and_begins_no_new_one(rig: Rig) -> None:
    waiting, behind = rig.watch(1), rig.watch(2)
    await rig.taken(waiting)
    taking = asyncio.ensure_future(waiting.next())
    await rig.settle()
    rig.hub.close()
    with pytest.raises(StoppingError):
        await taking
    with pytest.raises(StoppingError):
        behind.take()
    with pytest.raises(StoppingError):
        rig.hub.open()
    rig.source.held.add(3)
    await rig.hub.aclose()


async def test_closing_for_good_ends_reads_and_pauses(rig: Rig) -> None:
    rig.source.held.add(1)
    rig.source.errors = [DOWN()]
    watch = rig.watch(1, 2, *range(3, 30))
    await rig.settle()
    await rig.hub.aclose()
    watch.close()
    assert rig.source.cancelled == [1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_watches_and_their_ids_are_bounded_in_number_and_room_comes_free_again() -> None:
    rig = Rig(max_watches=2, max_ids=5)
    first, second = rig.watch(1, 2, 3), rig.hub.open()
    with pytest.raises(OverloadedError, match="too many watches: this process takes 2"):
        rig.hub.open()
    with pytest.raises(OverloadedError, match="too many ids are watched: this process takes 5"):
        second.add([1, 2, 3])
    assert rig.events.refusals == 2
    second.add([1, 2])
    first.close()
    second.add([3, 4, 5])
    assert rig.hub.ids == 5
    assert await rig.taken(second) == [(id_, 0, 0) for id_ in (1, 2, 3, 4, 5)]


async def test_only_so_many_reads_run_at_once_and_a_change_is_not_last_in_a_long_line(rig: Rig) -> None:
    watch = rig.watch(5_000)
    await rig.taken(watch)
    crowd = list(range(1, 1_001))
    rig.source.held.update(crowd)
    rig.watch(*crowd)
    await rig.settle()
    assert rig.source.at_once == LOADS
    rig.change(5_000)
    for template_id in crowd[: 2 * LOADS]:
        rig.source.let_go(template_id)
        await rig.settle()
    assert await rig.taken(watch) == [(5_000, 1, 0)]
    assert rig.source.most_at_once == LOADS
    assert len(rig.source.reads) < 4 * LOADS


async def test_states_kept_for_watchers_are_bounded_and_what_had_to_go_is_read_again(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watches_module, "KEPT_BYTES", 10_000)
    rig.source.body = "x" * 900
    rig.source.versions.update(dict.fromkeys(range(1, 101), 1))
    watch = rig.watch(*range(1, 101))
    await rig.settle()
    assert rig.hub._kept_bytes <= 10_000
    found: list[tuple[int, int, int]] = []
    while len(found) < 100:
        found += await rig.taken(watch)
    assert sorted(found) == [(template_id, 1, 0) for template_id in range(1, 101)]
    assert rig.hub._kept_bytes == sum(len(state.payload or b"") for state in rig.hub._kept.values()) <= 10_000


async def test_waking_a_thousand_watchers_leaves_turns_to_others(rig: Rig) -> None:
    watches = [rig.watch(1) for _ in range(1_000)]
    await rig.settle()
    assert {taken_at_once(watch) for watch in watches} == {(1, 0, 0)}
    woken: list[int] = []

    async def take(watch_number: int) -> None:
        await watches[watch_number].next()
        woken.append(watch_number)

    taking = [asyncio.ensure_future(take(number)) for number in range(1_000)]
    await rig.settle()
    rig.change(1)
    most, before = 0, 0
    while len(woken) < 1_000:
        await asyncio.sleep(0)
        most, before = max(most, len(woken) - before), len(woken)
    assert most <= 2 * WOKEN_A_TURN
    await asyncio.gather(*taking)


async def test_a_read_does_not_go_by_the_name_of_the_call_that_started_it(rig: Rig) -> None:
    seen = []
    read = rig.hub._read

    async def recording(template_id: int) -> object:
        seen.append(CALL.get())
        return await read(template_id)

    rig.hub._read = recording  # type: ignore[assignment]
    CALL.set("mine")
    watch = rig.watch(1)
    await rig.taken(watch)
    rig.change(1)
    await rig.taken(watch)
    assert seen == ["none", "none"]
