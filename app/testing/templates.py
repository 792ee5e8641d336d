"""Templates in memory, in place of PostgreSQL and Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from app.domain.errors import RequestIdReusedError, TemplateNotFoundError, VersionMismatchError
from app.domain.ports import ImportBatch, ImportSummary, Written
from app.domain.template import Template, TemplateDraft, TemplatePatch
from app.service import TemplateService, to_payload
from app.watching.watches import Watches

T = TypeVar("T")

MAX_WATCHES = 1_000
MAX_WATCHED_IDS = 10_000


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A read's answer, as new as can be."""

    payload: bytes | None
    version: int
    age_s: float = 0.0
    source: str = "origin"


@dataclass(frozen=True, slots=True)
class _Change:
    id: int
    version: int


class _NoEvents:
    def told(self, skipped: int) -> None: ...

    def watch_load_failed(self) -> None: ...

    def watch_refused(self) -> None: ...


class InMemoryTemplates:
    """Implements the domain's `Repository` and `Cache`, and tells watchers of every write.

    Its rules are the real ones: ids rise, versions never fall for an id, a request id is for one write. It keeps
    everything, so it is for tests only. While `error` is set, every method raises it, in place of an outage. Belongs to
    one event loop.
    """

    def __init__(self, *drafts: TemplateDraft, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """With these templates, under the ids 1, 2, …"""
        self.error: Exception | None = None
        self._now = now
        self._templates: dict[int, Template] = {}
        self._versions: dict[int, int] = {}
        self._answers: dict[str, tuple[Hashable, Any]] = {}
        self._watches = Watches(self.read, max_watches=MAX_WATCHES, max_ids=MAX_WATCHED_IDS, events=_NoEvents())
        self._watches.feed_caught_up()
        for draft in drafts:
            self._made(draft)

    def service(self) -> TemplateService:
        """The real use cases over these templates."""
        return TemplateService(self, self, self._watches)

    async def aclose(self) -> None:
        """Watches end."""
        await self._watches.aclose()

    async def read(self, template_id: int) -> MemoryReading:
        self._fail()
        found = self._templates.get(template_id)
        return MemoryReading(None if found is None else to_payload(found), self._versions.get(template_id, 0))

    async def written(self, template_id: int, version: int, payload: bytes | None) -> None:
        """Nothing is kept that could be past."""

    async def outdated(self, template_id: int, version: int) -> None:
        """Nothing is kept that could be past."""

    async def get(self, template_id: int) -> Template:
        self._fail()
        return self._found(template_id, None)

    async def create(self, draft: TemplateDraft, request_id: str | None = None) -> Written[Template]:
        return self._once(request_id, ("create", draft), lambda: self._made(draft))

    async def update(
        self, template_id: int, patch: TemplatePatch, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[Template]:
        def write() -> Template:
            old = self._found(template_id, expected)
            name = old.name if patch.name is None else patch.name
            body = old.body if patch.body is None else patch.body
            return self._put(template_id, name, body)

        return self._once(request_id, ("update", template_id, patch, expected), write)

    async def delete(
        self, template_id: int, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[int]:
        def write() -> int:
            version = self._found(template_id, expected).version + 1
            del self._templates[template_id]
            self._changed(template_id, version)
            return version

        return self._once(request_id, ("delete", template_id, expected), write)

    async def import_all(self, batches: AsyncIterator[ImportBatch]) -> Written[ImportSummary]:
        self._fail()
        drafts: list[TemplateDraft] = []
        request_id = None
        async for batch in batches:
            request_id = request_id or batch.request_id
            drafts += batch.drafts

        def write() -> ImportSummary:
            ids = [self._made(draft).id for draft in drafts]
            size = sum(len(draft.name.encode()) + len(draft.body.encode()) for draft in drafts)
            return ImportSummary(len(ids), size, min(ids, default=0), max(ids, default=0))

        return self._once(request_id, ("import", tuple(drafts)), write)

    async def page(self, after_id: int, limit: int) -> Sequence[Template]:
        self._fail()
        return [self._templates[key] for key in sorted(self._templates) if key > after_id][: max(0, limit)]

    def _once(self, request_id: str | None, about: Hashable, write: Callable[[], T]) -> Written[T]:
        self._fail()
        if request_id is None:
            return Written(write())
        if request_id in self._answers:
            first, answer = self._answers[request_id]
            if first != about:
                raise RequestIdReusedError(request_id)
            return Written(answer, is_repeat=True)
        answer = write()
        self._answers[request_id] = about, answer
        return Written(answer)

    def _made(self, draft: TemplateDraft) -> Template:
        return self._put(max(self._versions, default=0) + 1, draft.name, draft.body)

    def _put(self, template_id: int, name: str, body: str) -> Template:
        template = self._templates[template_id] = Template(
            template_id, name, body, self._versions.get(template_id, 0) + 1, self._now()
        )
        self._changed(template_id, template.version)
        return template

    def _changed(self, template_id: int, version: int) -> None:
        self._versions[template_id] = version
        self._watches.changed([_Change(template_id, version)])

    def _found(self, template_id: int, expected: frozenset[int] | None) -> Template:
        found = self._templates.get(template_id)
        if found is None:
            raise TemplateNotFoundError(template_id)
        if expected is not None and found.version not in expected:
            raise VersionMismatchError(template_id, found.version)
        return found

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
