"""The template service's use cases, over ports. HTTP and gRPC both speak to this one object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime

from app.concurrency.breaker import BreakerOpenError
from app.concurrency.bulkhead import BulkheadFullError, BulkheadTimeoutError
from app.concurrency.keyed_lock import TooManyWaitersError as TooManyLockWaitersError
from app.concurrency.singleflight import (
    FlightCancelledError,
    GroupClosedError,
    TooManyWaitersError,
    WaitTimeoutError,
)
from app.domain.errors import (
    DeadlineExceededError,
    OverloadedError,
    StorageUnavailableError,
    TemplateNotFoundError,
)
from app.domain.ports import Cache, ImportBatch, ImportSummary, Reading, Repository, Written
from app.domain.template import Template, TemplateDraft, TemplatePatch, check_id
from app.domain.write_request import check_request_id
from app.watching.watch import Watch
from app.watching.watches import Watches

MAX_PAGE = 100


def to_payload(template: Template) -> bytes:
    """The template as the JSON that clients get and caches hold."""
    fields = {
        "id": template.id,
        "name": template.name,
        "body": template.body,
        "version": template.version,
        "updated_at": template.updated_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def from_payload(payload: bytes) -> Template:
    """The template that `to_payload` wrote."""
    fields = json.loads(payload)
    return Template(
        id=fields["id"],
        name=fields["name"],
        body=fields["body"],
        version=fields["version"],
        updated_at=datetime.fromisoformat(fields["updated_at"]),
    )


async def in_domain_terms(reading: Awaitable[Reading]) -> Reading:
    """What `reading` gives. What waiting for others raises is raised as an error of the domain."""
    try:
        return await reading
    except (TooManyWaitersError, TooManyLockWaitersError, BulkheadFullError, BulkheadTimeoutError) as error:
        raise OverloadedError from error
    except BreakerOpenError as error:
        raise StorageUnavailableError(error.retry_after_s) from error
    except (WaitTimeoutError, TimeoutError) as error:
        raise DeadlineExceededError from error
    except (FlightCancelledError, GroupClosedError) as error:
        raise StorageUnavailableError from error


class TemplateService:
    """What can be done with templates. Every method raises `app.domain.errors` and nothing else that is expected."""

    def __init__(self, repository: Repository, cache: Cache, watches: Watches | None = None) -> None:
        """Without `watches` nothing follows the database's changes, and nothing can be watched."""
        self._repository = repository
        self._cache = cache
        self._watches = watches

    async def state(self, template_id: int) -> Reading:
        """What is known of an id, through the cache; its `payload` is `None` where there is no such template."""
        check_id(template_id)
        return await in_domain_terms(self._cache.read(template_id))

    async def read(self, template_id: int) -> Reading:
        """One template through the cache, as ready bytes. Its `payload` is never `None`."""
        reading = await self.state(template_id)
        if reading.payload is None:
            raise TemplateNotFoundError(template_id)
        return reading

    async def get(self, template_id: int) -> Template:
        """One template through the cache."""
        payload = (await self.read(template_id)).payload
        assert payload is not None  # noqa: S101 - read() promises it
        return from_payload(payload)

    def watch(self, ready: asyncio.Event | None = None, *, fails_fast: bool = False) -> Watch:
        """A watch of no ids yet; as `app.watching.watches.Watches.open`."""
        if self._watches is None:
            raise StorageUnavailableError
        return self._watches.open(ready, fails_fast=fails_fast)

    def end_watches(self) -> None:
        """The service is about to stop: every watch ends by `StoppingError`, and no new one is opened."""
        if self._watches is not None:
            self._watches.close()

    async def create(self, draft: TemplateDraft, request_id: str | None = None) -> Template:
        """A new template. With a `request_id`, here as in the other writes, see `Repository`."""
        written = await self._repository.create(draft, _checked(request_id))
        return await self._told(written)

    async def update(
        self,
        template_id: int,
        patch: TemplatePatch,
        expected: frozenset[int] | None = None,
        request_id: str | None = None,
    ) -> Template:
        """Write what the patch has; with `expected`, only if the version is one of those."""
        check_id(template_id)
        written = await self._repository.update(template_id, patch, expected, _checked(request_id))
        return await self._told(written)

    async def delete(
        self, template_id: int, expected: frozenset[int] | None = None, request_id: str | None = None
    ) -> int:
        """Delete; with `expected`, only if the version is one of those. Returns the deletion's own version."""
        check_id(template_id)
        deletion = await self._repository.delete(template_id, expected, _checked(request_id))
        if deletion.is_repeat:
            await _to_end(lambda: self._cache.outdated(template_id, deletion.answer))
        else:
            await _to_end(lambda: self._cache.written(template_id, deletion.answer, None))
        return deletion.answer

    async def import_all(self, batches: AsyncIterator[ImportBatch]) -> ImportSummary:
        """Make many templates, all of them or none; see `Repository.import_all`.

        The cache is not told: it holds nothing of ids that were not there, but the knowledge that they were not, which
        the database's announcement ends.
        """
        return (await self._repository.import_all(batches)).answer

    async def page(self, after_id: int, limit: int) -> Sequence[Template]:
        """At most `limit` templates with ids above `after_id`, by id, from the database."""
        return await self._repository.page(after_id, limit)

    async def _told(self, written: Written[Template]) -> Template:
        template = written.answer
        if written.is_repeat:
            # It may have been written again since: what was true then is not to be kept as if it were true now.
            await _to_end(lambda: self._cache.outdated(template.id, template.version))
        else:
            await _to_end(lambda: self._cache.written(template.id, template.version, to_payload(template)))
        return template


def _checked(request_id: str | None) -> str | None:
    return None if request_id is None else check_request_id(request_id)


async def _to_end(tell: Callable[[], Awaitable[None]]) -> None:
    """Tell the cache of a write that is committed, whether or not the caller stays: one that leaves meanwhile leaves
    after it was told again, from the start, which does no harm."""
    try:
        await tell()
    except asyncio.CancelledError:
        await tell()
        raise
