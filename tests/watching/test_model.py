"""Random changes, announcements, losses, reads and takes: what every watcher must have been told in the end."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.domain.errors import StorageUnavailableError
from app.watching.watch import Watch
from tests.watching.source import FakeChange, Rig

IDS = range(1, 5)
STEPS = 120
DEEDS = ["write", "write", "announce", "take", "take", "add", "remove", "hold", "go", "fail", "gap"]


class Watcher:
    """It takes when it is told to. Of each id: what it was told since it began to watch it."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.told: dict[int, list[int]] = {}

    def add(self, template_id: int) -> None:
        self.watch.add([template_id])
        self.told.setdefault(template_id, [])

    def remove(self, template_id: int) -> None:
        self.watch.remove([template_id])
        self.told.pop(template_id, None)

    def take(self, announced: dict[int, int]) -> bool:
        """One state; whether there was one. It is not older than what was announced by now."""
        news = self.watch.take()
        if news is None:
            return False
        told, version = self.told[news.state.id], news.state.version
        assert version >= announced[news.state.id]
        if told:
            assert version >= told[-1]
            assert news.skipped == max(0, version - told[-1] - 1)
        else:
            assert news.skipped == 0
        told.append(version)
        return True


@pytest.mark.parametrize("seed", range(150))
async def test_versions_rise_none_is_past_and_in_the_end_all_are_told_the_newest(seed: int) -> None:
    chance = random.Random(seed)
    announced = dict.fromkeys(IDS, 0)
    underway: list[FakeChange] = []
    async with Rig() as rig:
        watchers = [Watcher(rig.hub.open()) for _ in range(3)]

        def announce() -> None:
            change = underway.pop(chance.randrange(len(underway)))
            announced[change.id] = max(announced[change.id], change.version)
            rig.hub.changed([change])

        for _ in range(STEPS):
            watcher, template_id = chance.choice(watchers), chance.choice(IDS)
            match chance.choice(
                ["write", "write", "announce", "take", "take", "add", "remove", "hold", "go", "fail", "gap"]
            ):
                case "write":
                    underway.append(FakeChange(template_id, rig.write(template_id)))
                case "announce" if underway:
                    announce()
                case "take":
                    watcher.take(announced)
                case "add":
                    watcher.add(template_id)
                case "remove":
                    watcher.remove(template_id)
                case "hold":
                    rig.source.held.add(template_id)
                case "go":
                    rig.source.let_go(template_id)
                case "fail":
                    rig.source.errors = [StorageUnavailableError()]
                case "gap" if chance.random() < 0.3:
                    underway.clear()  # lost
                    rig.hub.everything_changed()
            for _ in range(chance.choice([0, 0, 1, 3, 20])):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                rig.end_pauses()
        while underway:
            announce()
        rig.source.errors.clear()
        for template_id in IDS:
            rig.source.let_go(template_id)
        for _ in range(10):
            rig.end_pauses()
            await rig.settle()
            for watcher in watchers:
                while watcher.take(announced):
                    pass
        for watcher in watchers:
            for template_id, told in watcher.told.items():
                assert told[-1:] == [rig.source.versions[template_id]]
        assert rig.source.at_once == 0
