from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from app.cli import garbage


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The generations that were collected, while the collector does nothing by itself and its counts are made up."""
    generations: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            generations.append(info["generation"])

    monkeypatch.setattr(garbage, "INTERVAL_S", 0)
    gc.disable()
    gc.callbacks.append(note)
    yield generations
    gc.callbacks.remove(note)
    gc.enable()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("count", "generation"),
    [((1_999, 0, 0), 0), ((0, 4, 29), 0), ((0, 5, 0), 1), ((0, 250, 29), 1), ((0, 0, 30), 2), ((0, 99, 30), 2)],
)
def test_a_generation_is_due_once_the_younger_one_was_collected_often(
    count: tuple[int, int, int], generation: int
) -> None:
    assert garbage.due(count) == generation


async def test_nothing_is_collected_while_much_is_in_hand_and_what_was_due_then_in_the_next_quiet_moment(
    collected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [0, garbage.LEAST_YOUNG, 0]
    monkeypatch.setattr(gc, "get_count", lambda: tuple(count))
    in_hand = 1_000.0
    task = asyncio.create_task(garbage.collect_when_quiet(lambda: in_hand))
    try:
        await turns()
        assert collected == []
        in_hand = garbage.QUIET_AT_MOST
        await turns()
        assert collected
        assert set(collected) == {1}
        count[1] = 0
        await turns(2)
        collected.clear()
        await turns()
        assert collected == [], "nothing is due"
    finally:
        task.cancel()


def test_settling_leaves_what_there_is_out_of_every_later_collection() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        garbage.settle()
        assert gc.get_threshold() == garbage.THRESHOLDS
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
