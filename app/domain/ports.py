"""What the use cases need from outside, as protocols. `bootstrap` plugs the real things in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from app.domain.template import Template, TemplateDraft, TemplatePatch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """What a write came to. `is_repeat`: it was done before, under the same request id, and not now, so that `answer`
    may be past already."""

    answer: T
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class ImportBatch:
    """The next templates of an import; `request_id` counts in its first batch only."""

    drafts: Sequence[TemplateDraft]
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import made: how many templates, of how many bytes of UTF-8, the lowest and the highest of their ids.

    The ids are 0 where none was made; those between may be another writer's.
    """

    imported: int
    size_bytes: int
    first_id: int
    last_id: int


class Repository(Protocol):
    """Templates at their origin. Every method may raise `StorageUnavailableError`.

    A write with a `request_id` is done once for that id, and recorded with its answer in the transaction that does it:
    a second one, at any replica, gets that answer, if need be after a wait for the first. Raises `RequestIdReusedError`
    where the first was another write. A write that fails leaves no trace of its id.
    """

    async def get(self, template_id: int) -> Template:
        """Raises `TemplateNotFoundError`."""
        ...

    async def create(self, draft: TemplateDraft, request_id: str | None = None) -> Written[Template]: ...

    async def update(
        self, template_id: int, patch: TemplatePatch, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[Template]:
        """Writes what the patch has and raises the version by one.

        `expected`, where given, holds the versions that the caller will overwrite. Raises
        `VersionMismatchError` where the current one is not among them, `TemplateNotFoundError`.
        """
        ...

    async def delete(
        self, template_id: int, expected: frozenset[int] | None, request_id: str | None = None
    ) -> Written[int]:
        """Answers with the version that the deletion itself has, above every version that the row had.

        Raises as `update` does.
        """
        ...

    async def import_all(self, batches: AsyncIterator[ImportBatch]) -> Written[ImportSummary]:
        """Makes all of these, in one transaction, or none.

        What `batches` raises, or its cancellation, undoes it and is passed on. Raises `OverloadedError` where as many
        imports run as may, and `DeadlineExceededError` where a batch, or the end, does not come in time.
        """
        ...

    async def page(self, after_id: int, limit: int) -> Sequence[Template]:
        """At most `limit` templates with ids above `after_id`, by id."""
        ...


class Reading(Protocol):
    """One read's answer."""

    @property
    def payload(self) -> bytes | None:
        """The template as JSON in UTF-8, ready for the wire; `None` where it is known not to exist."""
        ...

    @property
    def version(self) -> int: ...

    @property
    def age_s(self) -> float:
        """Seconds since the value was loaded from the database."""
        ...

    @property
    def source(self) -> str:
        """Where the answer came from: `l1`, `l2`, `origin`, `shared` or `stale`."""
        ...


class Announced(Protocol):
    """A template was inserted, updated or deleted."""

    @property
    def id(self) -> int: ...

    @property
    def version(self) -> int:
        """What the id has now, unless it is already higher."""
        ...


class Cache(Protocol):
    """The read path in front of the repository."""

    async def read(self, template_id: int) -> Reading:
        """Raises what the load raises, and `app.concurrency` errors where the wait for it was bounded."""
        ...

    async def written(self, template_id: int, version: int, payload: bytes | None) -> None:
        """A write was committed: nothing older than `version` is to be served. `None` means deleted.

        Never raises: a cache that cannot be told only shortens how far it can be trusted, by its TTL.
        """
        ...

    async def outdated(self, template_id: int, version: int) -> None:
        """As `written`, where it is not known what the template is now, only that it got as far as `version`."""
        ...
