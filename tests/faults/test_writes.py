"""Writes over gRPC on two replicas: done once, seen everywhere, whole or not at all."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from app.domain.template import MAX_BODY_CHARS, MAX_NAME_CHARS
from app.embedded.stack import EmbeddedStack
from app.proto.template.v1 import template_pb2 as pb
from app.storage.postgres import Connection
from tests.faults.in_process import Served
from tests.faults.polling import until
from tests.faults.replicas import Failure, Replica, failure, replicas

numbers = itertools.count(1)


@pytest.fixture
async def pair(database_url: str, redis_url: str) -> AsyncIterator[list[Replica]]:
    # Half of it is how long a writer waits for another's row.
    async with replicas(database_url, redis_url, database_statement_timeout_s=60) as both:
        yield both


@pytest.fixture
def key() -> str:
    return f"request {next(numbers)}"


def creation(name: str = "made", body: str = "", request_id: str = "") -> pb.CreateTemplateRequest:
    return pb.CreateTemplateRequest(template=pb.NewTemplate(name=name, body=body), request_id=request_id)


async def made(replica: Replica, name: str = "made", body: str = "first") -> pb.Template:
    template: pb.Template = (await replica.stub.CreateTemplate(creation(name, body))).template
    return template


async def ended(call: Awaitable[object]) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


async def read(replica: Replica, template_id: int) -> tuple[str, str]:
    """The body by gRPC and by HTTP, or `none`."""
    call = replica.stub.GetTemplateDetails(pb.GetTemplateDetailsRequest(id=template_id))
    by_grpc = "none" if await call.code() is grpc.StatusCode.NOT_FOUND else (await call).template.body
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{replica.http_url}/template-details", params={"id": template_id})
    return by_grpc, answer.json()["body"] if answer.status_code == 200 else "none"


async def blocked(admin: Connection, writers: int) -> None:
    async def waiting() -> bool:
        await admin.execute("SELECT pg_stat_clear_snapshot()")
        found = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(found == writers)

    await until(waiting, f"{writers} writers wait for a row")


async def idle(admin: Connection) -> None:
    async def nothing_open() -> bool:
        return not await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
            " AND pid <> pg_backend_pid() AND application_name LIKE 'template-full%'"
        )

    await until(nothing_open, "no transaction is open")


async def test_what_is_written_by_grpc_is_seen_by_both_protocols_at_both_replicas(pair: list[Replica]) -> None:
    writer, other = pair
    created = await made(writer)
    assert (created.version, created.name, created.body) == (1, "made", "first")
    for replica in pair:
        assert await read(replica, created.id) == ("first", "first")
    updated = (
        await writer.stub.UpdateTemplate(
            pb.UpdateTemplateRequest(template=pb.Template(id=created.id, name="made", body="second"))
        )
    ).template
    assert (updated.version, updated.body) == (2, "second")
    assert updated.updated_at.ToDatetime() > created.updated_at.ToDatetime()
    assert await read(writer, created.id) == ("second", "second")
    await until(lambda: _reads(other, created.id, "second"), "the other replica sees it")
    deletion = await writer.stub.DeleteTemplate(pb.DeleteTemplateRequest(id=created.id, expected_version=2))
    assert deletion.version == 3
    assert await read(writer, created.id) == ("none", "none")
    await until(lambda: _reads(other, created.id, "none"), "the other replica sees that it is gone")


async def _reads(replica: Replica, template_id: int, body: str) -> bool:
    return await read(replica, template_id) == (body, body)


@pytest.mark.parametrize(
    ("paths", "written"),
    [
        (None, ("new", "new")),
        ([], ("new", "new")),
        (["*"], ("new", "new")),
        (["name", "*"], ("new", "new")),
        (["name", "body"], ("new", "new")),
        (["name"], ("new", "first")),
        (["body"], ("made", "new")),
        (["body", "body"], ("made", "new")),
    ],
)
async def test_a_mask_says_which_fields_are_written(
    pair: list[Replica], paths: list[str] | None, written: tuple[str, str]
) -> None:
    created = await made(pair[0])
    request = pb.UpdateTemplateRequest(template=pb.Template(id=created.id, name="new", body="new", version=77))
    if paths is not None:
        request.update_mask.CopyFrom(FieldMask(paths=paths))
    answer = (await pair[0].stub.UpdateTemplate(request)).template
    assert (answer.name, answer.body, answer.version) == (*written, 2)


async def test_a_field_that_the_mask_leaves_out_may_break_its_rule(pair: list[Replica]) -> None:
    created = await made(pair[0])
    request = pb.UpdateTemplateRequest(template=pb.Template(id=created.id, body="new"), update_mask={"paths": ["body"]})
    assert (await pair[0].stub.UpdateTemplate(request)).template.name == "made"


_LONG = "x" * 129
BAD: list[tuple[str, Any, tuple[str, ...], str]] = [
    ("CreateTemplate", pb.CreateTemplateRequest(), ("template",), "template: must be given"),
    ("CreateTemplate", creation(""), ("template.name",), "template.name: must not be blank"),
    ("CreateTemplate", creation("x" * (MAX_NAME_CHARS + 1)), ("template.name",), "must have at most 200 characters"),
    (
        "CreateTemplate",
        creation("\0", "x" * (MAX_BODY_CHARS + 1), _LONG),
        ("request_id", "template.name", "template.body"),
        "request_id: must have 1 to 128 printable ASCII characters",
    ),
    ("CreateTemplate", creation("n", request_id="tab\t"), ("request_id",), "printable ASCII"),
    ("CreateTemplate", creation("n", request_id="é"), ("request_id",), "printable ASCII"),
    ("UpdateTemplate", pb.UpdateTemplateRequest(), ("template",), "template: must be given"),
    (
        "UpdateTemplate",
        pb.UpdateTemplateRequest(template=pb.Template(), expected_version=0),
        ("expected_version", "template.id", "template.name"),
        "expected_version: must be 1 or more",
    ),
    (
        "UpdateTemplate",
        pb.UpdateTemplateRequest(template=pb.Template(id=1, name="n"), update_mask={"paths": ["name", "version"]}),
        ("update_mask",),
        "update_mask: has 'version'; there are name and body, and * for both",
    ),
    (
        "UpdateTemplate",
        pb.UpdateTemplateRequest(template=pb.Template(id=1, name="n"), update_mask={"paths": ["template.name"]}),
        ("update_mask",),
        "update_mask: has 'template.name'",
    ),
    (
        "UpdateTemplate",
        pb.UpdateTemplateRequest(template=pb.Template(id=1, name="n"), update_mask={"paths": ["y" * 10_000] * 50}),
        ("update_mask",),
        f"update_mask: has '{'y' * 32}...'",
    ),
    ("DeleteTemplate", pb.DeleteTemplateRequest(), ("id",), "id: must be a whole number from 1"),
    (
        "DeleteTemplate",
        pb.DeleteTemplateRequest(id=-1, expected_version=-1, request_id=_LONG),
        ("request_id", "expected_version", "id"),
        "expected_version: must be 1 or more",
    ),
]


@pytest.mark.parametrize(("method", "request_", "fields", "text"), BAD)
async def test_bad_input_is_told_field_by_field_and_writes_nothing(
    pair: list[Replica], admin: Connection, method: str, request_: Any, fields: tuple[str, ...], text: str
) -> None:
    before = await admin.fetchrow("SELECT count(*), max(version) FROM template_changes")
    end = await ended(getattr(pair[0].stub, method)(request_))
    assert (end.code, end.reason, end.fields) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT", fields)
    assert text in end.text
    assert await admin.fetchrow("SELECT count(*), max(version) FROM template_changes") == before


async def test_what_is_not_there_is_not_found(pair: list[Replica]) -> None:
    update = pb.UpdateTemplateRequest(template=pb.Template(id=2**62, name="n"))
    assert (await ended(pair[0].stub.UpdateTemplate(update))).code is grpc.StatusCode.NOT_FOUND
    deletion = pb.DeleteTemplateRequest(id=2**62)
    assert (await ended(pair[0].stub.DeleteTemplate(deletion))).code is grpc.StatusCode.NOT_FOUND


async def test_of_ten_at_two_replicas_that_expect_one_version_exactly_one_wins(
    pair: list[Replica], admin: Connection
) -> None:
    """All ten have begun before the row comes free."""
    created = await made(pair[0])
    async with admin.transaction():
        await admin.execute("SELECT FROM templates WHERE id = $1 FOR UPDATE", created.id)
        calls = [
            asyncio.ensure_future(
                pair[number % 2].stub.UpdateTemplate(
                    pb.UpdateTemplateRequest(
                        template=pb.Template(id=created.id, name=f"writer {number}"),
                        expected_version=1,
                        request_id=f"race {created.id} {number}" if number < 5 else "",
                    )
                )
            )
            for number in range(10)
        ]
        await blocked(admin, 10)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    losers = [failure(outcome).code for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert losers == [grpc.StatusCode.ABORTED] * 9
    assert await admin.fetchval("SELECT version FROM templates WHERE id = $1", created.id) == 2


async def test_duplicates_at_once_at_two_replicas_are_done_once_and_answered_alike(
    pair: list[Replica], admin: Connection, key: str
) -> None:
    answers = await asyncio.gather(
        *(pair[number % 2].stub.CreateTemplate(creation(key, "body", key)) for number in range(20))
    )
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert await admin.fetchval("SELECT count(*) FROM templates WHERE name = $1", key) == 1


async def test_a_retry_after_a_lost_answer_gets_it_at_another_replica(
    pair: list[Replica], admin: Connection, key: str
) -> None:
    """The caller leaves after the commit, while the cache is being told; that goes on to its end nevertheless."""
    created = await made(pair[0])
    cache = pair[0].app.runtime.service._cache
    telling, tell, told = asyncio.Event(), asyncio.Event(), asyncio.Event()
    written = cache.written

    async def held(*arguments: Any) -> None:
        telling.set()
        await tell.wait()
        await written(*arguments)
        told.set()

    cache.written = held  # type: ignore[assignment, method-assign]
    request = pb.UpdateTemplateRequest(
        template=pb.Template(id=created.id, body="second"), update_mask={"paths": ["body"]}, expected_version=1
    )
    request.request_id = key
    call = pair[0].stub.UpdateTemplate(request)
    lost = asyncio.ensure_future(ended(call))
    await asyncio.wait_for(telling.wait(), 10)
    call.cancel()
    tell.set()
    await asyncio.wait_for(told.wait(), 10)
    with pytest.raises(asyncio.CancelledError):
        await lost
    answer = (await pair[1].stub.UpdateTemplate(request)).template
    assert (answer.version, answer.body) == (2, "second")
    assert await admin.fetchval("SELECT version FROM templates WHERE id = $1", created.id) == 2
    for replica in pair:
        assert await read(replica, created.id) == ("second", "second")


async def test_an_id_used_for_another_write_is_refused_by_every_replica(pair: list[Replica], key: str) -> None:
    first = (await pair[0].stub.CreateTemplate(creation("one", "", key))).template
    for replica in pair:
        for call in (
            replica.stub.CreateTemplate(creation("another", "", key)),
            replica.stub.DeleteTemplate(pb.DeleteTemplateRequest(id=first.id, request_id=key)),
        ):
            end = await ended(call)
            assert (end.code, end.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
            assert end.text == f"the request id '{key}' was used for another write: a new write needs a new id"
    assert (await pair[1].stub.CreateTemplate(creation("one", "", key))).template == first


async def test_a_key_over_http_is_the_request_id_of_grpc(pair: list[Replica], admin: Connection, key: str) -> None:
    made_by_grpc = (await pair[0].stub.CreateTemplate(creation(key, "body", key))).template
    async with httpx.AsyncClient(headers={"Idempotency-Key": key}) as http:
        at = f"{pair[1].http_url}/template-details"
        again = await http.post(at, json={"name": key, "body": "body"})
        assert (again.status_code, again.json()["id"]) == (201, made_by_grpc.id)
        other = await http.post(at, json={"name": key, "body": "another"})
        assert (other.status_code, other.json()["code"]) == (409, "request_id_reused")
    assert await admin.fetchval("SELECT count(*) FROM templates WHERE name = $1", key) == 1


async def test_an_answer_given_again_is_not_kept_as_what_is_true_now(
    pair: list[Replica], database_url: str, redis_url: str, stack: EmbeddedStack, key: str
) -> None:
    """By a replica that knows of no later version: it has just begun, and Redis has forgotten all."""
    created = (await pair[0].stub.CreateTemplate(creation("made", "first", key))).template
    await pair[0].stub.UpdateTemplate(
        pb.UpdateTemplateRequest(template=pb.Template(id=created.id, name="made", body="second"))
    )
    with socket.create_connection((stack.redis.host, stack.redis.port), 5) as redis:
        redis.sendall(b"FLUSHALL\r\n")
        assert redis.recv(64) == b"+OK\r\n"
    async with replicas(database_url, redis_url, count=1) as (late,):
        assert (await late.stub.CreateTemplate(creation("made", "first", key))).template == created
        assert await read(late, created.id) == ("second", "second")


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("by_deadline", [False, True])
async def test_a_caller_gone_in_the_middle_of_a_write_leaves_nothing(
    pair: list[Replica], admin: Connection, key: str, by_deadline: bool, keyed: bool
) -> None:
    created = await made(pair[0])
    request = pb.UpdateTemplateRequest(
        template=pb.Template(id=created.id, name="lost"), request_id=key if keyed else ""
    )
    async with admin.transaction():
        await admin.execute("SELECT FROM templates WHERE id = $1 FOR UPDATE", created.id)
        call = pair[0].stub.UpdateTemplate(request, timeout=3.0 if by_deadline else 30)
        waiting = asyncio.ensure_future(call)
        await blocked(admin, 1)
        if by_deadline:
            assert (await ended(waiting)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await blocked(admin, 0)
    await idle(admin)
    assert await admin.fetchval("SELECT name FROM templates WHERE id = $1", created.id) == "made"
    assert await admin.fetchval("SELECT count(*) FROM write_requests WHERE request_id = $1", key) == 0
    retried = (await pair[1].stub.UpdateTemplate(request)).template
    assert (retried.name, retried.version) == ("lost", 2)


async def test_the_ends_of_writes_with_ids_are_counted(pair: list[Replica], key: str) -> None:
    def count(app: Served, end: str) -> float:
        return app.runtime.metrics.registry.get_sample_value("write_requests_total", {"end": end}) or 0.0

    for replica in pair:
        await replica.stub.CreateTemplate(creation("n", "", key))
    await ended(pair[1].stub.CreateTemplate(creation("m", "", key)))
    assert [count(pair[0].app, end) for end in ("recorded", "repeated", "reused")] == [1, 0, 0]
    assert [count(pair[1].app, end) for end in ("recorded", "repeated", "reused")] == [0, 1, 1]
