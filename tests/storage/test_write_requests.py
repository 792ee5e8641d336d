"""Writes that are sent again. Two repositories, each with a pool of its own, stand for two replicas."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any

import asyncpg
import pytest

from app.domain.errors import (
    InvalidInputError,
    RequestIdReusedError,
    StorageUnavailableError,
    TemplateNotFoundError,
    VersionMismatchError,
)
from app.domain.ports import Written
from app.domain.template import TemplateDraft, TemplatePatch
from app.domain.write_request import MAX_REQUEST_ID_CHARS, Fingerprint, check_request_id
from app.storage.postgres import Connection
from app.storage.templates import TemplateRepository
from app.storage.write_requests import PRUNED_AT_ONCE
from tests.storage.conftest import OpenDatabase, wait_for
from tests.storage.test_writers import until_blocked

DRAFT = TemplateDraft("Ünïcode 🙂", 'line\r\n\t\x7f\\ "quoted" {{x}}')
KEPT = "SELECT count(*) FROM write_requests WHERE request_id = $1"
MADE_AND_KEPT = (
    "SELECT (SELECT count(*) FROM templates WHERE name = $1),"
    " (SELECT count(*) FROM write_requests WHERE request_id = $2)"
)
OPEN_TRANSACTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'tests' AND xact_start IS NOT NULL"
)

numbers = itertools.count(1)


@pytest.fixture
def request_id() -> str:
    return f"request {next(numbers)}"


@pytest.fixture
async def other(url: str, open_database: OpenDatabase) -> TemplateRepository:
    """The second replica."""
    return TemplateRepository(await open_database(url))


async def count(admin: Connection) -> int:
    found: int = await admin.fetchval("SELECT count(*) FROM templates")
    return found


async def age(admin: Connection, request_id: str, interval: str) -> None:
    """As if it had been recorded so much earlier: the database's clock, as far as this row goes."""
    changed = await admin.execute(
        f"UPDATE write_requests SET at = at - interval '{interval}' WHERE request_id = $1", request_id
    )
    assert changed == "UPDATE 1"


async def test_a_creation_sent_again_is_done_once_and_answered_alike_by_every_replica(
    repository: TemplateRepository, other: TemplateRepository, admin: Connection, request_id: str
) -> None:
    before = await count(admin)
    first = await repository.create(DRAFT, request_id)
    assert not first.is_repeat
    for replica in (repository, other, other):
        assert await replica.create(DRAFT, request_id) == Written(first.answer, is_repeat=True)
    assert await count(admin) == before + 1


async def test_an_update_sent_again_gets_the_first_answer_though_others_wrote_meanwhile(
    repository: TemplateRepository, other: TemplateRepository, request_id: str
) -> None:
    created = (await repository.create(DRAFT)).answer
    patch = TemplatePatch(body="second")
    first = await repository.update(created.id, patch, frozenset({1}), request_id)
    third = await repository.update(created.id, TemplatePatch(body="third"), None)
    assert await other.update(created.id, patch, frozenset({1}), request_id) == Written(first.answer, is_repeat=True)
    assert await repository.get(created.id) == third.answer


async def test_a_deletion_sent_again_gets_its_version_and_not_that_nothing_is_there(
    repository: TemplateRepository, other: TemplateRepository, request_id: str
) -> None:
    created = (await repository.create(DRAFT)).answer
    assert await repository.delete(created.id, None, request_id) == Written(2)
    assert await other.delete(created.id, None, request_id) == Written(2, is_repeat=True)


async def test_an_id_that_was_another_writes_is_refused_and_nothing_is_done(
    repository: TemplateRepository, admin: Connection, request_id: str
) -> None:
    created = (await repository.create(DRAFT)).answer
    updated = (await repository.update(created.id, DRAFT, None, request_id)).answer
    before = await count(admin)
    others: list[Awaitable[object]] = [
        repository.create(DRAFT, request_id),
        repository.update(created.id, TemplatePatch(name=DRAFT.name), None, request_id),
        repository.update(created.id, TemplatePatch(body=DRAFT.body), None, request_id),
        repository.update(created.id, DRAFT, frozenset(), request_id),
        repository.update(created.id, DRAFT, frozenset({2}), request_id),
        repository.update(1, DRAFT, None, request_id),
        repository.delete(created.id, None, request_id),
    ]
    for write in others:
        with pytest.raises(RequestIdReusedError, match=f"the request id '{request_id}' was used for another write"):
            await write
    assert await repository.get(created.id) == updated
    assert await count(admin) == before


async def test_a_write_that_failed_leaves_no_trace_and_its_id_may_be_used_again(
    repository: TemplateRepository, admin: Connection, request_id: str
) -> None:
    created = (await repository.create(DRAFT)).answer
    with pytest.raises(VersionMismatchError):
        await repository.update(created.id, DRAFT, frozenset({7}), request_id)
    with pytest.raises(TemplateNotFoundError):
        await repository.delete(2**60, None, request_id)
    assert await admin.fetchval(KEPT, request_id) == 0
    assert (await repository.update(created.id, DRAFT, frozenset({1}), request_id)).answer.version == 2


async def test_a_duplicate_that_comes_while_the_first_is_being_done_waits_and_gets_its_answer(
    repository: TemplateRepository, other: TemplateRepository, admin: Connection, request_id: str
) -> None:
    """The first has claimed the id and waits for the template's row, which a third session holds; the duplicates, at
    both replicas, wait for the first."""
    created = (await repository.create(DRAFT)).answer
    patch = TemplatePatch(body="once")
    async with admin.transaction():
        await admin.execute("SELECT FROM templates WHERE id = $1 FOR UPDATE", created.id)
        first = asyncio.create_task(repository.update(created.id, patch, frozenset({1}), request_id))
        await until_blocked(admin, 1)
        duplicates = [
            asyncio.create_task(replica.update(created.id, patch, frozenset({1}), request_id))
            for replica in (repository, other, other)
        ]
        await until_blocked(admin, 4)
    answer = (await first).answer
    assert answer.version == 2
    assert await asyncio.gather(*duplicates) == [Written(answer, is_repeat=True)] * 3
    assert (await repository.get(created.id)).version == 2


async def test_a_duplicate_that_waited_for_a_first_that_fails_does_the_write_itself(
    repository: TemplateRepository, other: TemplateRepository, admin: Connection, request_id: str
) -> None:
    """The first is cancelled, as by a caller that goes away, while it waits for the row and the duplicate for it."""
    created = (await repository.create(DRAFT)).answer
    async with admin.transaction():
        await admin.execute("SELECT FROM templates WHERE id = $1 FOR UPDATE", created.id)
        first = asyncio.create_task(repository.update(created.id, DRAFT, None, request_id))
        await until_blocked(admin, 1)
        duplicate = asyncio.create_task(other.update(created.id, DRAFT, None, request_id))
        await until_blocked(admin, 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await until_blocked(admin, 1)
    written = await duplicate
    assert (written.answer.version, written.is_repeat) == (2, False)


async def test_of_twenty_at_once_over_two_replicas_one_is_done(
    repository: TemplateRepository, other: TemplateRepository, admin: Connection, request_id: str
) -> None:
    before = await count(admin)
    replicas = itertools.cycle((repository, other))
    written = await asyncio.gather(*(next(replicas).create(DRAFT, request_id) for _ in range(20)))
    assert len({each.answer for each in written}) == 1
    assert sorted(each.is_repeat for each in written) == [False] + [True] * 19
    assert await count(admin) == before + 1


async def test_a_write_cancelled_at_any_moment_is_done_and_recorded_or_neither(
    url: str, open_database: OpenDatabase, admin: Connection
) -> None:
    """And its connection, the pool's only one, is good for the next."""
    repository = TemplateRepository(await open_database(url, pool_max=1))
    loop = asyncio.get_running_loop()
    outcomes = set()

    async def no_transaction_is_open() -> bool:
        return bool(await admin.fetchval(OPEN_TRANSACTIONS) == 0)

    for tenths_of_ms in range(0, 60, 2):
        request_id, name = f"cancelled {tenths_of_ms}", f"cancelled {tenths_of_ms}"
        write = asyncio.create_task(repository.create(TemplateDraft(name, ""), request_id))
        loop.call_later(tenths_of_ms / 10_000, write.cancel)
        await asyncio.wait({write})
        # A session that did not acknowledge the cancellation in time may still be at its COMMIT.
        await wait_for(no_transaction_is_open)
        ((made, kept),) = await admin.fetch(MADE_AND_KEPT, name, request_id)
        assert made == kept
        outcomes.add((write.cancelled(), made))
        assert (await repository.create(TemplateDraft(name, ""), request_id)).is_repeat == bool(made)
    assert (True, 0) in outcomes


async def test_after_24_hours_an_id_is_as_good_as_new(
    repository: TemplateRepository, admin: Connection, request_id: str
) -> None:
    first = (await repository.create(DRAFT, request_id)).answer
    await age(admin, request_id, "23 hours 59 minutes")
    assert (await repository.create(DRAFT, request_id)).answer == first
    await age(admin, request_id, "1 minute")
    again = await repository.create(TemplateDraft("another", ""), request_id)
    assert not again.is_repeat
    assert (await repository.create(TemplateDraft("another", ""), request_id)) == Written(again.answer, is_repeat=True)


async def test_each_recorded_write_takes_a_few_expired_ids_out_and_no_other(
    repository: TemplateRepository, admin: Connection, request_id: str
) -> None:
    await admin.execute("DELETE FROM write_requests")
    await admin.execute(
        "INSERT INTO write_requests (request_id, at) "
        "SELECT 'old ' || n, now() - interval '24 hours' - n * interval '1 s' FROM generate_series(1, $1) AS n",
        2 * PRUNED_AT_ONCE - 1,
    )
    await admin.execute("INSERT INTO write_requests (request_id, at) VALUES ('young', now() - interval '23 hours')")
    left = []
    for _ in range(3):
        await repository.create(DRAFT, f"{request_id} {next(numbers)}")
        left.append(await admin.fetchval("SELECT count(*) FROM write_requests WHERE request_id LIKE 'old %'"))
    assert left == [PRUNED_AT_ONCE - 1, 0, 0]
    assert await admin.fetchval("SELECT count(*) FROM write_requests") == 4


async def test_expired_ids_that_another_transaction_holds_are_left_to_it(
    repository: TemplateRepository, admin: Connection, request_id: str
) -> None:
    await repository.create(DRAFT, f"{request_id} old")
    await age(admin, f"{request_id} old", "25 hours")
    async with admin.transaction():
        await admin.execute("SELECT FROM write_requests WHERE request_id = $1 FOR UPDATE", f"{request_id} old")
        await repository.create(DRAFT, request_id)
    assert await admin.fetchval(KEPT, f"{request_id} old") == 1


async def test_a_duplicate_waits_no_longer_than_statements_may_run(
    url: str, open_database: OpenDatabase, admin: Connection, request_id: str
) -> None:
    repository = TemplateRepository(await open_database(url, pool_max=1, statement_timeout_s=1.0))
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("INSERT INTO write_requests (request_id) VALUES ($1)", request_id)
    with pytest.raises(StorageUnavailableError):
        await repository.create(DRAFT, request_id)
    await transaction.rollback()
    assert not (await repository.create(DRAFT, request_id)).is_repeat


async def test_what_becomes_of_each_is_told_once(url: str, open_database: OpenDatabase, request_id: str) -> None:
    ends: list[str] = []
    repository = TemplateRepository(await open_database(url), on_request=ends.append)
    await repository.create(DRAFT)
    await repository.create(DRAFT, request_id)
    await repository.create(DRAFT, request_id)
    with pytest.raises(RequestIdReusedError):
        await repository.delete(1, None, request_id)
    with pytest.raises(TemplateNotFoundError):
        await repository.delete(2**60, None, f"{request_id} failed")
    assert ends == ["recorded", "repeated", "reused"]


@pytest.mark.parametrize("bad", ["", "x" * (MAX_REQUEST_ID_CHARS + 1), "tab\t", "\x7f", "é", "\u2028", "a\nb", "\x00"])
async def test_ids_that_are_refused_are_refused_by_the_table_too(admin: Connection, bad: str) -> None:
    with pytest.raises(InvalidInputError, match="request_id: must have 1 to 128 printable ASCII characters"):
        check_request_id(bad)
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.CharacterNotInRepertoireError)):
        await admin.execute("INSERT INTO write_requests (request_id) VALUES ($1)", bad)


async def test_every_id_that_is_taken_is_taken_by_the_table(repository: TemplateRepository) -> None:
    printable = "".join(map(chr, range(0x20, 0x7F)))
    for good in (printable, " ", "x" * MAX_REQUEST_ID_CHARS):
        assert check_request_id(good) == good
        assert not (await repository.create(DRAFT, good)).is_repeat
        assert (await repository.create(DRAFT, good)).is_repeat


@pytest.mark.parametrize(
    ("one", "another"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a",), ("a", "")),
        (("a", None), ("a", "")),
        (("1",), (1,)),
        ((1, 2), (12,)),
        (("t1:a",), ("a",)),
        ((None,), ("-",)),
    ],
)
def test_contents_that_differ_have_different_fingerprints(one: tuple[Any, ...], another: tuple[Any, ...]) -> None:
    assert Fingerprint(*one).digest() != Fingerprint(*another).digest()
    together = Fingerprint()
    for part in one:
        together.add(part)
    assert together.digest() == Fingerprint(*one).digest()


def test_fingerprints_are_the_same_in_every_release() -> None:
    """They outlive the program that made them: a retry may meet the next release."""
    digest = Fingerprint("update", 7, "n", None, "é").digest()
    assert digest.hex() == "e6a1015ece6ca865531ec97f92323aa20e38af3e7b23226b0ba2321805fc39f0"
