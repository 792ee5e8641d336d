from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.concurrency import keyed_lock, singleflight
from app.domain.errors import (
    DeadlineExceededError,
    DomainError,
    InvalidInputError,
    OverloadedError,
    StorageUnavailableError,
    TemplateNotFoundError,
    VersionMismatchError,
)
from app.domain.template import MAX_ID, Template, TemplateDraft, TemplatePatch
from app.service import TemplateService, from_payload, to_payload
from tests.api.http.fake_ports import FakeCache, MemoryRepository, template

DRAFT = TemplateDraft("new", "newer")

MAPPED: list[tuple[Exception, type[DomainError]]] = [
    (singleflight.TooManyWaitersError("full"), OverloadedError),
    (keyed_lock.TooManyWaitersError("full"), OverloadedError),
    (singleflight.WaitTimeoutError("late"), DeadlineExceededError),
    (TimeoutError("late"), DeadlineExceededError),
    (singleflight.FlightCancelledError("cancelled"), StorageUnavailableError),
    (singleflight.GroupClosedError("closed"), StorageUnavailableError),
]
BUGS = {singleflight.ReentrantCallError, singleflight.WrongLoopError}
"""No state of the world brings these about: they are passed on as they are, and are a 500."""


@pytest.fixture
def repository() -> MemoryRepository:
    memory = MemoryRepository()
    memory.put(template(1, version=3))
    return memory


@pytest.fixture
def cache(repository: MemoryRepository) -> FakeCache:
    return FakeCache(repository)


@pytest.fixture
def service(repository: MemoryRepository, cache: FakeCache) -> TemplateService:
    return TemplateService(repository, cache)


@pytest.mark.parametrize(("raised", "expected"), MAPPED, ids=lambda value: getattr(value, "__name__", repr(value)))
async def test_what_waiting_for_others_raises_becomes_an_error_of_the_domain(
    service: TemplateService, cache: FakeCache, raised: Exception, expected: type[DomainError]
) -> None:
    cache.error = raised
    for call in (service.read, service.get):
        with pytest.raises(expected) as caught:
            await call(1)
        assert caught.value.__cause__ is raised
        assert str(raised) not in str(caught.value)


def test_every_error_of_singleflight_and_lock_is_mapped_or_known_to_be_a_bug() -> None:
    declared = {
        value
        for module in (singleflight, keyed_lock)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__
    }
    assert declared - {singleflight.FlightError} == {type(error) for error, _ in MAPPED} - {TimeoutError} | BUGS


@pytest.mark.parametrize("error", [StorageUnavailableError(), TemplateNotFoundError(1), ValueError("a bug")], ids=repr)
async def test_every_other_error_of_a_read_is_passed_on_as_it_is(
    service: TemplateService, cache: FakeCache, error: Exception
) -> None:
    cache.error = error
    with pytest.raises(type(error)) as caught:
        await service.read(1)
    assert caught.value is error


@pytest.mark.parametrize("bad", [0, -1, MAX_ID + 1])
async def test_an_id_that_no_template_can_have_reaches_neither_cache_nor_repository(bad: int) -> None:
    broken = MemoryRepository(error=AssertionError("asked"))
    service = TemplateService(broken, FakeCache(broken, error=AssertionError("asked")))
    for call in (service.read(bad), service.get(bad), service.update(bad, DRAFT), service.delete(bad)):
        with pytest.raises(InvalidInputError) as caught:
            await call
        assert [violation.field for violation in caught.value.violations] == ["id"]


async def test_a_reading_without_a_payload_means_that_there_is_no_template(service: TemplateService) -> None:
    with pytest.raises(TemplateNotFoundError) as caught:
        await service.read(9)
    assert caught.value.template_id == 9


async def test_every_write_tells_the_cache_what_is_true_now(service: TemplateService, cache: FakeCache) -> None:
    created = await service.create(DRAFT)
    updated = await service.update(created.id, DRAFT, frozenset({1}))
    await service.delete(created.id, frozenset({2}))
    assert cache.writes == [
        (created.id, 1, to_payload(created)),
        (created.id, 2, to_payload(updated)),
        (created.id, 3, None),
    ]


async def test_an_answer_given_again_only_tells_the_cache_how_far_the_template_got(
    service: TemplateService, cache: FakeCache
) -> None:
    """What it was then may be past by now."""
    for _ in range(2):
        created = await service.create(DRAFT, "created")
        updated = await service.update(created.id, DRAFT, None, "updated")
        assert await service.delete(created.id, None, "deleted") == 3
    assert cache.writes == [
        (created.id, 1, to_payload(created)),
        (created.id, 2, to_payload(updated)),
        (created.id, 3, None),
    ]
    assert cache.passed == [(created.id, 1), (created.id, 2), (created.id, 3)]


@pytest.mark.parametrize("bad", ["", "x" * 129, "\n"])
async def test_a_request_id_that_breaks_its_rule_reaches_no_repository(bad: str) -> None:
    broken = MemoryRepository(error=AssertionError("asked"))
    service = TemplateService(broken, FakeCache(broken))
    for call in (service.create(DRAFT, bad), service.update(1, DRAFT, None, bad), service.delete(1, None, bad)):
        with pytest.raises(InvalidInputError) as caught:
            await call
        assert [violation.field for violation in caught.value.violations] == ["request_id"]


async def test_a_caller_that_leaves_while_the_cache_is_told_leaves_after_it_was_told(
    service: TemplateService, cache: FakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling, tell = asyncio.Event(), asyncio.Event()
    written = cache.written

    async def held(template_id: int, version: int, payload: bytes | None) -> None:
        telling.set()
        await tell.wait()
        await written(template_id, version, payload)

    monkeypatch.setattr(cache, "written", held)
    caller = asyncio.create_task(service.create(DRAFT))
    await telling.wait()
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    tell.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(cache.writes) == 1


async def test_a_patch_leaves_what_it_does_not_name(service: TemplateService, repository: MemoryRepository) -> None:
    before = repository.templates[1]
    assert (await service.update(1, TemplatePatch(body="b"))).name == before.name
    assert (await service.update(1, TemplatePatch(name="n"))).body == "b"


async def test_a_write_that_was_not_done_tells_the_cache_nothing(
    service: TemplateService, cache: FakeCache, repository: MemoryRepository
) -> None:
    for call in (service.update(1, DRAFT, frozenset({2})), service.delete(1, frozenset())):
        with pytest.raises(VersionMismatchError):
            await call
    repository.error = StorageUnavailableError()
    for call in (service.create(DRAFT), service.update(1, DRAFT), service.delete(1)):
        with pytest.raises(StorageUnavailableError):
            await call
    assert cache.writes == []


@pytest.mark.parametrize(
    "updated_at",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(1, 1, 1, tzinfo=UTC),
    ],
)
def test_a_payload_is_read_back_as_the_template_that_it_was_made_from(updated_at: datetime) -> None:
    original = replace(template(MAX_ID, version=MAX_ID), name='"\\\n', body="\u2028😀", updated_at=updated_at)
    payload = to_payload(original)
    assert from_payload(payload) == original
    assert isinstance(from_payload(payload), Template)
    assert b'Z"}' in payload
    assert b"\n" not in payload
