"""Templates at their origin, as a test tells them to be, and the hub over them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from app.domain.errors import StorageUnavailableError
from app.domain.ports import Reading
from app.domain.template import Template
from app.service import to_payload
from app.watching.watch import News, Watch
from app.watching.watches import Watches

UPDATED_AT = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)


@dataclass(frozen=True)
class FakeReading:
    payload: bytes | None
    version: int
    age_s: float = 0.0
    source: str = "origin"


@dataclass(frozen=True)
class FakeChange:
    id: int
    version: int


@dataclass
class Source:
    """Version 0 is an id that never was. A read takes its value when it begins, and ends when it is let go.

    `held` makes reads wait until `let_go`; `errors` are raised by the next ones, in turn.
    """

    versions: Counter[int] = field(default_factory=Counter)
    reads: list[int] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    waiting: dict[int, list[asyncio.Future[None]]] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    body: str = ""

    async def read(self, template_id: int) -> Reading:
        self.reads.append(template_id)
        version = self.versions[template_id]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if template_id in self.held:
                waits = asyncio.get_running_loop().create_future()
                self.waiting.setdefault(template_id, []).append(waits)
                await waits
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(template_id)
            raise
        finally:
            self.at_once -= 1
        if self.errors:
            raise self.errors.pop(0)
        template = Template(template_id, f"version {version}", self.body, version, UPDATED_AT)
        return FakeReading(to_payload(template) if version else None, version)

    def let_go(self, template_id: int) -> None:
        """All reads of the id that wait end, and later ones don't wait."""
        self.held.discard(template_id)
        for waits in self.waiting.pop(template_id, []):
            if not waits.done():
                waits.set_result(None)


@dataclass
class Recorded:
    """Implements `WatchEvents`."""

    tellings: int = 0
    skips: int = 0
    failures: int = 0
    refusals: int = 0

    def told(self, skipped: int) -> None:
        self.tellings += 1
        self.skips += skipped

    def watch_load_failed(self) -> None:
        self.failures += 1

    def watch_refused(self) -> None:
        self.refusals += 1


class Rig:
    """The hub, caught up. Pauses are recorded, and end when the test says so."""

    def __init__(self, max_watches: int = 10_000, max_ids: int = 1_000_000) -> None:
        self.source = Source()
        self.events = Recorded()
        self.pauses: list[float] = []
        self._paused: list[asyncio.Future[None]] = []
        self.hub = Watches(
            self.source.read, max_watches=max_watches, max_ids=max_ids, events=self.events, pause=self._pause
        )
        self.hub.feed_caught_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hub.aclose()

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        waits = asyncio.get_running_loop().create_future()
        self._paused.append(waits)
        await waits

    def end_pauses(self) -> None:
        for waits in self._paused:
            if not waits.done():
                waits.set_result(None)
        self._paused.clear()

    def watch(self, *ids: int, fails_fast: bool = False) -> Watch:
        watch = self.hub.open(fails_fast=fails_fast)
        watch.add(ids)
        return watch

    def write(self, template_id: int) -> int:
        """A committed change that is not announced yet."""
        self.source.versions[template_id] += 1
        return self.source.versions[template_id]

    def change(self, *ids: int) -> None:
        """Committed and announced."""
        self.hub.changed([FakeChange(template_id, self.write(template_id)) for template_id in ids])

    async def settle(self) -> None:
        """All that can go on without a further word has gone on."""
        for _ in range(60):
            await asyncio.sleep(0)

    async def taken(self, watch: Watch) -> list[tuple[int, int, int]]:
        """Id, version and versions skipped of all that there is to take, until nothing more comes."""
        found: list[tuple[int, int, int]] = []
        for _ in range(3):  # to take may be to ask for a read
            await self.settle()
            while (news := watch.take()) is not None:
                found.append(plain(news))
        return found


def plain(news: News) -> tuple[int, int, int]:
    return news.state.id, news.state.version, news.skipped


DOWN = StorageUnavailableError
