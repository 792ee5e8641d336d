"""Repository and cache as a test tells them to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app.domain.errors import TemplateNotFoundError, VersionMismatchError
from app.domain.ports import ImportBatch, ImportSummary, Written
from app.domain.template import Template, TemplateDraft, TemplatePatch
from app.service import to_payload

UPDATED_AT = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)


@dataclass(frozen=True)
class FakeReading:
    payload: bytes | None
    version: int
    age_s: float
    source: str


def template(template_id: int, version: int = 1, body: str = "Dear {{name}}, — 你好 😀") -> Template:
    return Template(template_id, f"name {template_id}", body, version, UPDATED_AT)


@dataclass
class MemoryRepository:
    """Templates by id. `error` is raised by every method. A request id is never refused."""

    templates: dict[int, Template] = field(default_factory=dict)
    requests: dict[str | None, Written[Any]] = field(default_factory=dict)
    error: Exception | None = None

    def put(self, *templates: Template) -> None:
        self.templates.update({template.id: template for template in templates})

    async def get(self, template_id: int) -> Template:
        self._fail()
        return self._found(template_id, None)

    async def create(self, draft: TemplateDraft, request_id: str | None = None) -> Written[Template]:
        self._fail()
        if request_id in self.requests:
            return self.requests[request_id]
        created = Template(max(self.templates, default=0) + 1, draft.name, draft.body, 1, UPDATED_AT)
        self.put(created)
        return self._kept(request_id, created)

    async def update(
        self, template_id: int, patch: TemplatePatch, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[Template]:
        self._fail()
        if request_id in self.requests:
            return self.requests[request_id]
        old = self._found(template_id, expected)
        name = old.name if patch.name is None else patch.name
        body = old.body if patch.body is None else patch.body
        self.put(replace(old, name=name, body=body, version=old.version + 1))
        return self._kept(request_id, self.templates[template_id])

    async def delete(
        self, template_id: int, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[int]:
        self._fail()
        if request_id in self.requests:
            return self.requests[request_id]
        self._found(template_id, expected)
        return self._kept(request_id, self.templates.pop(template_id).version + 1)

    async def import_all(self, batches: AsyncIterator[ImportBatch]) -> Written[ImportSummary]:
        self._fail()
        made = [(await self.create(draft)).answer async for batch in batches for draft in batch.drafts]
        ids = [template.id for template in made]
        size = sum(len(template.name.encode() + template.body.encode()) for template in made)
        return Written(ImportSummary(len(made), size, min(ids, default=0), max(ids, default=0)))

    async def page(self, after_id: int, limit: int) -> Sequence[Template]:
        self._fail()
        return [self.templates[i] for i in sorted(self.templates) if i > after_id][:limit]

    def _kept(self, request_id: str | None, answer: Any) -> Written[Any]:
        if request_id is not None:
            self.requests[request_id] = Written(answer, is_repeat=True)
        return Written(answer)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def _found(self, template_id: int, expected: frozenset[int] | None) -> Template:
        found = self.templates.get(template_id)
        if found is None:
            raise TemplateNotFoundError(template_id)
        if expected is not None and found.version not in expected:
            raise VersionMismatchError(template_id, found.version)
        return found


@dataclass
class FakeCache:
    """Reads what the repository holds, as old and from where the test says.

    `error` is raised by every read; `hold` makes reads wait until it is set.
    """

    repository: MemoryRepository
    age_s: float = 0.0
    source: str = "origin"
    error: Exception | None = None
    hold: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    writes: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    passed: list[tuple[int, int]] = field(default_factory=list)

    async def read(self, template_id: int) -> FakeReading:
        self.begun.set()
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.error is not None:
            raise self.error
        found = self.repository.templates.get(template_id)
        payload = None if found is None else to_payload(found)
        return FakeReading(payload, 0 if found is None else found.version, self.age_s, self.source)

    async def written(self, template_id: int, version: int, payload: bytes | None) -> None:
        self.writes.append((template_id, version, payload))

    async def outdated(self, template_id: int, version: int) -> None:
        self.passed.append((template_id, version))
