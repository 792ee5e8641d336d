"""What may be watched."""

from __future__ import annotations

import asyncio
import re

import pytest

from app.domain.errors import InvalidInputError
from app.domain.template import MAX_ID
from app.watching.watch import MAX_IDS
from tests.watching.source import Rig


@pytest.mark.parametrize(
    ("ids", "field", "reason"),
    [
        ([], "ids", "must be 1 to 1000 different ones, are 0"),
        (range(1, 1_002), "ids", "must be 1 to 1000 different ones, are 1001"),
        ([1, 0], "ids[1]", f"must be a whole number from 1 to {MAX_ID}"),
        ([-1], "ids[0]", f"must be a whole number from 1 to {MAX_ID}"),
        ([5, 7, MAX_ID + 1], "ids[2]", f"must be a whole number from 1 to {MAX_ID}"),
    ],
    ids=["none", "too many", "zero", "negative", "too high"],
)
async def test_ids_that_cannot_be_watched_are_refused_by_name_and_none_is_added(
    rig: Rig, ids: list[int], field: str, reason: str
) -> None:
    watch = rig.hub.open()
    with pytest.raises(InvalidInputError, match=re.escape(reason)) as caught:
        watch.add(list(ids))
    assert [violation.field for violation in caught.value.violations] == [field]
    assert rig.hub.ids == 0
    assert await rig.taken(watch) == []
    assert rig.source.reads == []


async def test_the_most_ids_and_the_highest_can_be_watched_and_repetitions_count_once(rig: Rig) -> None:
    ids = [*range(1, MAX_IDS), MAX_ID]
    watch = rig.watch(*ids, *ids)
    assert rig.hub.ids == MAX_IDS
    found: list[tuple[int, int, int]] = []
    while len(found) < MAX_IDS:
        found += await rig.taken(watch)
    assert [template_id for template_id, _, _ in found] == ids


async def test_the_bound_holds_for_all_that_was_added_and_those_watched_already_do_not_count_again(rig: Rig) -> None:
    watch = rig.watch(*range(1, MAX_IDS + 1))
    watch.add([1, 2])
    with pytest.raises(InvalidInputError, match="are 1001 with those watched already"):
        watch.add([1, MAX_ID])
    watch.remove([7])
    watch.add([MAX_ID])
    assert rig.hub.ids == MAX_IDS


async def test_what_was_taken_is_never_lost_to_a_caller_who_gives_up_waiting(rig: Rig) -> None:
    watch = rig.watch(1)
    await rig.taken(watch)
    waiting = asyncio.ensure_future(watch.next())
    await rig.settle()
    rig.change(1)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await rig.taken(watch) == [(1, 1, 0)]
