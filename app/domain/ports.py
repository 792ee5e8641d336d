"""What the use cases need from outside, as protocols. `bootstrap` plugs the real things in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.domain.template import Template, TemplateDraft


class Repository(Protocol):
    """Templates at their origin. Every method may raise `StorageUnavailableError`."""

    async def get(self, template_id: int) -> Template:
        """Raises `TemplateNotFoundError`."""
        ...

    async def create(self, draft: TemplateDraft) -> Template: ...

    async def update(self, template_id: int, draft: TemplateDraft, expected: frozenset[int] | None) -> Template:
        """Replaces name and body and raises the version by one.

        `expected`, where given, holds the versions that the caller will overwrite. Raises
        `VersionMismatchError` where the current one is not among them, `TemplateNotFoundError`.
        """
        ...

    async def delete(self, template_id: int, expected: frozenset[int] | None) -> int:
        """Returns the version that the deletion itself has, above every version that the row had.

        Raises as `update` does.
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
