"""The template service's use cases, over ports. HTTP and gRPC both speak to this one object."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from app.domain.ports import Cache, Reading, Repository
from app.domain.template import Template, TemplateDraft, check_id

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


class TemplateService:
    """What can be done with templates. Every method raises `app.domain.errors` and nothing else that is expected."""

    def __init__(self, repository: Repository, cache: Cache) -> None:
        self._repository = repository
        self._cache = cache

    async def read(self, template_id: int) -> Reading:
        """One template through the cache, as ready bytes. Its `payload` is never `None`."""
        check_id(template_id)
        try:
            reading = await self._cache.read(template_id)
        except (TooManyWaitersError, TooManyLockWaitersError, BulkheadFullError, BulkheadTimeoutError) as error:
            raise OverloadedError from error
        except BreakerOpenError as error:
            raise StorageUnavailableError(error.retry_after_s) from error
        except (WaitTimeoutError, TimeoutError) as error:
            raise DeadlineExceededError from error
        except (FlightCancelledError, GroupClosedError) as error:
            raise StorageUnavailableError from error
        if reading.payload is None:
            raise TemplateNotFoundError(template_id)
        return reading

    async def get(self, template_id: int) -> Template:
        """One template through the cache."""
        payload = (await self.read(template_id)).payload
        assert payload is not None  # noqa: S101 - read() promises it
        return from_payload(payload)

    async def create(self, draft: TemplateDraft) -> Template:
        template = await self._repository.create(draft)
        await self._cache.written(template.id, template.version, to_payload(template))
        return template

    async def update(self, template_id: int, draft: TemplateDraft, expected: frozenset[int] | None = None) -> Template:
        """Replace name and body; with `expected`, only if the version is one of those."""
        check_id(template_id)
        template = await self._repository.update(template_id, draft, expected)
        await self._cache.written(template_id, template.version, to_payload(template))
        return template

    async def delete(self, template_id: int, expected: frozenset[int] | None = None) -> None:
        """Delete; with `expected`, only if the version is one of those."""
        check_id(template_id)
        version = await self._repository.delete(template_id, expected)
        await self._cache.written(template_id, version, None)

    async def page(self, after_id: int, limit: int) -> Sequence[Template]:
        """At most `limit` templates with ids above `after_id`, by id, from the database."""
        return await self._repository.page(after_id, limit)
