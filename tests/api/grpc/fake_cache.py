"""A cache that answers as a test tells it, and says what became of its reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.domain.ports import ImportBatch, ImportSummary, Reading, Written
from app.domain.template import Template, TemplateDraft, TemplatePatch
from app.service import TemplateService, to_payload

UPDATED_AT = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)


@dataclass(frozen=True)
class FakeReading:
    payload: bytes | None
    version: int = 3
    age_s: float = 1.25
    source: str = "origin"


def payload_of(template_id: int, body: str = "Dear {{name}}, — 你好 😀") -> bytes:
    return to_payload(Template(template_id, "welcome", body, 3, UPDATED_AT))


@dataclass
class FakeCache:
    """`error` is raised by every read; `hold` makes reads wait until it is set."""

    error: Exception | None = None
    hold: asyncio.Event | None = None
    source: str = "origin"
    body: str = "Dear {{name}}"
    asked: list[int] = field(default_factory=list)
    cancellations: list[int] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, template_id: int) -> Reading:
        self.asked.append(template_id)
        self.begun.set()
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancellations.append(template_id)
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error
        return FakeReading(payload_of(template_id, self.body), source=self.source)

    async def written(self, template_id: int, version: int, payload: bytes | None) -> None:
        raise AssertionError("no test here writes")

    async def outdated(self, template_id: int, version: int) -> None:
        raise AssertionError("no test here writes")


class NoRepository:
    """Reads go to the cache, and nothing else is asked for here."""

    async def get(self, template_id: int) -> Template:
        raise NotImplementedError

    async def create(self, draft: TemplateDraft, request_id: str | None = None) -> Written[Template]:
        raise NotImplementedError

    async def update(
        self, template_id: int, patch: TemplatePatch, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[Template]:
        raise NotImplementedError

    async def delete(
        self, template_id: int, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[int]:
        raise NotImplementedError

    async def import_all(self, batches: AsyncIterator[ImportBatch]) -> Written[ImportSummary]:
        raise NotImplementedError

    async def page(self, after_id: int, limit: int) -> Sequence[Template]:
        raise NotImplementedError


def service_over(cache: FakeCache) -> TemplateService:
    return TemplateService(NoRepository(), cache)
