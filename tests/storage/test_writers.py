"""Writers that meet. Each test says which interleaving it forces."""

from __future__ import annotations

import asyncio

import pytest

from app.domain.errors import TemplateNotFoundError, VersionMismatchError
from app.domain.ports import Written
from app.domain.template import TemplateDraft
from app.storage.postgres import Connection
from app.storage.templates import TemplateRepository
from tests.storage.conftest import wait_for

_DRAFT = TemplateDraft("mine", "mine")
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def until_blocked(admin: Connection, writers: int = 1) -> None:
    async def blocked() -> bool:
        # Inside a transaction the statistics would stay as they were at its first look.
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        return bool(await admin.fetchval(_BLOCKED) == writers)

    await wait_for(blocked)


async def test_of_ten_that_expect_the_same_version_one_wins_and_nine_learn_the_winners(
    repository: TemplateRepository, admin: Connection
) -> None:
    """All ten have begun, and so have their snapshots, before the row comes free."""
    created = (await repository.create(_DRAFT)).answer
    async with admin.transaction():
        await admin.execute("SELECT 1 FROM templates WHERE id = $1 FOR UPDATE", created.id)
        writers = [
            asyncio.create_task(repository.update(created.id, TemplateDraft(f"writer {n}", ""), frozenset({1})))
            for n in range(10)
        ]
        await until_blocked(admin, 10)
    outcomes = await asyncio.gather(*writers, return_exceptions=True)
    winners = [outcome.answer for outcome in outcomes if not isinstance(outcome, BaseException)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, VersionMismatchError)]
    assert len(winners) == 1
    assert winners == [await repository.get(created.id)]
    assert [loser.current for loser in losers] == [2] * 9


async def test_unconditional_updates_at_once_lose_no_version(repository: TemplateRepository) -> None:
    created = (await repository.create(_DRAFT)).answer
    outcomes = await asyncio.gather(*(repository.update(created.id, _DRAFT, None) for _ in range(20)))
    written = [outcome.answer for outcome in outcomes]
    assert sorted(template.version for template in written) == list(range(2, 22))
    by_version = sorted(written, key=lambda template: template.version)
    assert by_version == sorted(written, key=lambda template: template.updated_at)


@pytest.mark.parametrize("delete", [False, True])
async def test_a_writer_that_waited_for_another_learns_the_version_that_the_other_left(
    repository: TemplateRepository, admin: Connection, delete: bool
) -> None:
    """The other one writes twice while the writer, whose snapshot says version 1, waits for the row."""
    created = (await repository.create(_DRAFT)).answer
    async with admin.transaction():
        for _ in range(2):
            await admin.execute("UPDATE templates SET body = 'theirs' WHERE id = $1", created.id)
        expected = frozenset({1})
        call = repository.delete(created.id, expected) if delete else repository.update(created.id, _DRAFT, expected)
        writer = asyncio.ensure_future(call)
        await until_blocked(admin)
    with pytest.raises(VersionMismatchError) as raised:
        await writer
    assert raised.value.current == 3


async def test_a_writer_that_waited_writes_over_the_version_that_it_expects(
    repository: TemplateRepository, admin: Connection
) -> None:
    """The writer expects version 2, which is committed only after its snapshot was taken."""
    created = (await repository.create(_DRAFT)).answer
    async with admin.transaction():
        await admin.execute("UPDATE templates SET body = 'theirs' WHERE id = $1", created.id)
        writer = asyncio.create_task(repository.update(created.id, _DRAFT, frozenset({2})))
        await until_blocked(admin)
    assert (await writer).answer.version == 3
    assert (await repository.get(created.id)).body == "mine"


@pytest.mark.parametrize("delete", [False, True])
async def test_a_writer_that_waited_for_a_deletion_finds_nothing(
    repository: TemplateRepository, admin: Connection, delete: bool
) -> None:
    created = (await repository.create(_DRAFT)).answer
    async with admin.transaction():
        await admin.execute("DELETE FROM templates WHERE id = $1", created.id)
        call = repository.delete(created.id, None) if delete else repository.update(created.id, _DRAFT, None)
        writer = asyncio.ensure_future(call)
        await until_blocked(admin)
    with pytest.raises(TemplateNotFoundError):
        await writer


async def test_of_several_deletions_at_once_one_deletes(repository: TemplateRepository) -> None:
    created = (await repository.create(_DRAFT)).answer
    outcomes = await asyncio.gather(*(repository.delete(created.id, None) for _ in range(5)), return_exceptions=True)
    assert [outcome.answer for outcome in outcomes if isinstance(outcome, Written)] == [2]
    assert sum(isinstance(outcome, TemplateNotFoundError) for outcome in outcomes) == 4
