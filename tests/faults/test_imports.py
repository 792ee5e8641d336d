"""Imports over gRPC with real clients: all or nothing, at whatever stage they break off, in flat memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any

import grpc
import httpx
import psutil
import pytest

from app.client.status import told_whole
from app.client.templates import TemplateClient
from app.proto.template.v1 import template_pb2 as pb
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from app.storage.postgres import Connection
from tests.faults.conftest import Serve
from tests.faults.polling import until
from tests.faults.replicas import Failure, Replica, failure, replicas
from tests.storage.relay import Relay

MANY = 100_000
GROWTH_BYTES = 50_000_000
BIG = "x" * 10_000
BIG_MESSAGES = 30
"""Of 100 KB each: past every buffer on the way to the database."""
DEADLINE_S = 5.0
"""Of a call that has sent all that it sends by then, on a busy machine, too."""
names = (f"import {number}" for number in itertools.count(1))


@pytest.fixture
async def pair(database_url: str, redis_url: str) -> AsyncIterator[list[Replica]]:
    async with replicas(database_url, redis_url) as both:
        yield both


@pytest.fixture
def name() -> str:
    return next(names)


def message(*templates: tuple[str, str], request_id: str = "") -> pb.ImportTemplatesRequest:
    return pb.ImportTemplatesRequest(
        templates=[pb.NewTemplate(name=name, body=body) for name, body in templates], request_id=request_id
    )


def big(name: str, request_id: str = "") -> pb.ImportTemplatesRequest:
    return message(*[(name, BIG)] * 10, request_id=request_id)


async def sent(stub: Any, messages: Iterable[pb.ImportTemplatesRequest], timeout: float | None = 60.0) -> Any:
    """A call with these messages sent and not ended. Raises `AioRpcError` where it ends before they are."""
    call = told_whole(stub.ImportTemplates(timeout=timeout))
    for each in messages:
        await call.write(each)
    return call


async def answered(stub: Any, messages: Iterable[pb.ImportTemplatesRequest]) -> pb.ImportTemplatesResponse:
    """What a call is answered whose stream goes on after these messages. Raises `AioRpcError`."""
    response: pb.ImportTemplatesResponse = await (await sent(stub, messages))
    return response


async def ended(call: Awaitable[object]) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


def in_flight(replica: Replica) -> float:
    return replica.app.runtime.metrics.registry.get_sample_value("imports_in_flight") or 0.0


def ends(replica: Replica) -> dict[str, float]:
    """Imports by how they ended, without those that did not occur."""
    found = {}
    for family in replica.app.runtime.metrics.registry.collect():
        if family.name == "imports":
            found = {sample.labels["end"]: sample.value for sample in family.samples if sample.value}
    return found


async def under_way(admin: Connection, count: int) -> None:
    """So many transactions are open on the server."""

    async def reached() -> bool:
        found = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND xact_start IS NOT NULL AND application_name LIKE 'template-full%'"
        )
        return bool(found == count)

    await until(reached, f"{count} transactions are open")


async def assert_no_trace(admin: Connection, replica: Replica, name: str) -> None:
    """No template, no import that goes on, no open transaction, and every connection of the pool good and free."""
    await until(lambda: in_flight(replica) == 0, "no import goes on")
    await under_way(admin, 0)
    assert await admin.fetchval("SELECT count(*) FROM templates WHERE name = $1", name) == 0
    assert await admin.fetchval("SELECT count(*) FROM write_requests WHERE request_id = $1", name) == 0
    database = replica.app.runtime.service._repository._database  # type: ignore[attr-defined]
    together = asyncio.Barrier(replica.app.runtime.settings.database_pool_max)

    async def hold() -> None:
        async with database.connection() as connection:
            await together.wait()
            assert await connection.fetchval("SELECT 1") == 1

    async with asyncio.timeout(10):
        await asyncio.gather(*(hold() for _ in range(together.parties)))


async def test_what_was_imported_is_summed_up_and_read_by_both_protocols_at_both_replicas(
    pair: list[Replica], name: str
) -> None:
    call = await sent(pair[0].stub, [message((name, "漢"), (name, "b")), message(), message((name, "c"))])
    await call.done_writing()
    summary = await call
    assert (summary.imported, summary.bytes) == (3, 3 * len(name) + 3 + 1 + 1)
    assert summary.last_id == summary.first_id + 2
    async with httpx.AsyncClient() as http:
        for replica in pair:
            answer = await http.get(f"{replica.http_url}/template-details", params={"id": summary.last_id})
            assert answer.json()["body"] == "c"
            read = await replica.stub.GetTemplateDetails(pb.GetTemplateDetailsRequest(id=summary.first_id))
            assert read.template.body == "漢"


async def test_an_import_of_nothing_is_none(pair: list[Replica]) -> None:
    call = pair[0].stub.ImportTemplates(timeout=30)
    await call.done_writing()
    assert await call == pb.ImportTemplatesResponse()


@pytest.mark.parametrize("place", [0, 17, 100, 150, BIG_MESSAGES * 10])
async def test_the_first_offender_is_named_by_its_place_in_the_stream_and_nothing_is_made(
    pair: list[Replica], admin: Connection, name: str, place: int
) -> None:
    """In the first message, in a later slice of it, and after much has gone to the database."""
    if place > 200:
        messages = [*[big(name)] * BIG_MESSAGES, message(("", ""), ("", ""))]
    else:
        messages = [message(*[(name, "")] * place, ("", "x" * 65_537), ("", ""), request_id=name)]
    call = await sent(pair[0].stub, messages)
    await call.done_writing()
    end = await ended(call)
    assert end.code is grpc.StatusCode.INVALID_ARGUMENT
    assert end.fields[0] == f"templates[{place}].name"
    assert end.text.startswith(f"templates[{place}].name: must not be blank")
    await assert_no_trace(admin, pair[0], name)
    assert ends(pair[0]) == {"rejected": 1}


async def test_a_bad_request_id_is_refused_before_a_template_is_looked_at(pair: list[Replica]) -> None:
    end = await ended(answered(pair[0].stub, [message(("", ""), request_id="tab\t")]))
    assert (end.code, end.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("request_id",))


STAGES = {"nothing sent": 0, "one message": 1, "much": BIG_MESSAGES}
"""At which a stream breaks off, by the messages sent."""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["cancelled", "connection closed", "connection cut"])
async def test_a_stream_that_breaks_off_leaves_nothing(
    pair: list[Replica], admin: Connection, name: str, stage: str, how: str
) -> None:
    replica = pair[0]
    messages = [big(name, name)] * STAGES[stage]
    async with Relay(replica.app.grpc_port) as relay, _channel(relay.port) as channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        call = await sent(stub, messages)
        await until(lambda: in_flight(replica) == 1, "the import has begun")
        await under_way(admin, 1 if messages else 0)
        match how:
            case "cancelled":
                call.cancel()
            case "connection closed":
                await channel.close()
            case "connection cut":
                for writer in relay._writers:
                    writer.transport.abort()
                assert (await ended(call)).code is grpc.StatusCode.UNAVAILABLE
        await assert_no_trace(admin, replica, name)
    assert ends(replica) == {"broken_off": 1}


async def test_streams_whose_deadline_passes_at_any_stage_leave_nothing(
    pair: list[Replica], admin: Connection, name: str
) -> None:
    """One of each stage, at once."""
    replica = pair[0]
    calls = await asyncio.gather(
        sent(replica.stub, [], timeout=DEADLINE_S),
        sent(replica.stub, [big(name)], timeout=DEADLINE_S),
        sent(replica.stub, [big(name, name)] * BIG_MESSAGES, timeout=DEADLINE_S),
    )
    await until(lambda: in_flight(replica) == len(STAGES), "the imports have begun")
    await under_way(admin, len(STAGES) - 1)
    for call in calls:
        assert (await ended(call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
    await assert_no_trace(admin, replica, name)
    assert ends(replica) == {"broken_off": len(STAGES)}


def _channel(port: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)])


async def test_a_stream_cancelled_right_after_a_message_is_never_taken_for_one_that_ended(
    database_url: str, redis_url: str, admin: Connection, name: str
) -> None:
    """grpc.aio tells the method first that the stream is over, in one of five, and only then that it was cancelled."""
    chance = random.Random(5)
    # Room for those that have not begun yet when the next one is sent.
    room: Any = {"database_pool_max": 30, "import_concurrent": 25}
    async with replicas(database_url, redis_url, count=1, **room) as (replica,):
        for _ in range(150):
            await until(lambda: in_flight(replica) < 5, "most have been rolled back")
            call = await sent(replica.stub, [message((name, ""))] * chance.randrange(1, 4))
            call.cancel()
        await until(lambda: sum(ends(replica).values()) + in_flight(replica) > 0, "some have begun")
        await assert_no_trace(admin, replica, name)
        assert set(ends(replica)) == {"broken_off"}


async def test_a_caller_that_dawdles_is_ended(database_url: str, redis_url: str, admin: Connection, name: str) -> None:
    async with replicas(database_url, redis_url, count=1, import_idle_timeout_s=0.5) as (replica,):
        end = await ended(answered(replica.stub, [message((name, ""), request_id=name)]))
        assert (end.code, end.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert end.text == "the next message of an import must come within 0.5 s"
        await assert_no_trace(admin, replica, name)
        assert ends(replica) == {"late": 1}


async def test_callers_who_dawdle_leave_connections_for_all_others(
    database_url: str, redis_url: str, admin: Connection, name: str
) -> None:
    async with replicas(database_url, redis_url, count=1, database_pool_max=3, import_concurrent=2) as (replica,):
        calls = [await sent(replica.stub, [message((name, ""))]) for _ in range(2)]
        await under_way(admin, 2)
        end = await ended(answered(replica.stub, [message((name, ""))]))
        assert (end.code, end.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert end.text == "2 imports are under way, as many as may be at a time"
        created = await replica.stub.CreateTemplate(
            pb.CreateTemplateRequest(template=pb.NewTemplate(name="another")), timeout=10
        )
        assert created.template.version == 1
        for call in calls:
            call.cancel()
        await assert_no_trace(admin, replica, name)
        assert ends(replica) == {"refused": 1, "broken_off": 2}


async def test_an_import_sent_twice_at_once_at_two_replicas_is_done_once(
    pair: list[Replica], admin: Connection, name: str
) -> None:
    calls = [await sent(replica.stub, [big(name, name), big(name)]) for replica in pair]
    for call in calls:
        await call.done_writing()
    first, second = await asyncio.gather(*calls)
    assert first == second
    assert await admin.fetchval("SELECT count(*) FROM templates WHERE name = $1", name) == 20
    other = await sent(pair[1].stub, [big(name, name)])
    await other.done_writing()
    end = await ended(other)
    assert (end.code, end.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_100_000_templates_are_imported_in_flat_memory(
    database_url: str, redis_url: str, serve: Serve, admin: Connection, name: str
) -> None:
    """By a process of its own, and seen by another one."""
    replica, other = serve(database_url, redis_url), serve(database_url, redis_url)
    process = psutil.Process(replica.pid)
    body = "Dear {{name}}, " * 34
    highest = 0

    async def templates(count: int) -> AsyncIterator[tuple[str, str]]:
        nonlocal highest
        for number in range(count):
            if number % 1_000 == 0:
                highest = max(highest, process.memory_info().rss)
            yield f"{name}, {number}", body

    async with TemplateClient(replica.grpc_target) as client:
        await client.import_templates(templates(100))
        before, highest = process.memory_info().rss, 0
        summary = await client.import_templates(templates(MANY), timeout_s=100)
        highest = max(highest, process.memory_info().rss)
    print(f"{MANY:,} templates of {len(body)} characters: {(highest - before) / 1e6:.1f} MB more at the most")
    assert summary.count == MANY
    assert summary.last_id - summary.first_id == MANY - 1
    assert highest - before < GROWTH_BYTES
    async with TemplateClient(other.grpc_target) as client:
        assert (await client.get(summary.last_id)).template.name == f"{name}, {MANY - 1}"


async def test_an_import_that_loses_its_database_is_unavailable_and_may_be_sent_again_with_its_id(
    pair: list[Replica], admin: Connection, name: str
) -> None:
    """The connection is ended while the import waits for its caller's next message."""
    call = await sent(pair[0].stub, [big(name, name)] * BIG_MESSAGES)
    ended_at = (
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'COPY%' AND state = 'idle in transaction'"
    )

    async def cut() -> bool:
        return bool(await admin.fetchval(ended_at))

    await until(cut, "the import's connection is ended")
    with contextlib.suppress(asyncio.InvalidStateError):  # where the call has ended already
        await call.write(big(name))
        await call.done_writing()
    end = await ended(call)
    assert (end.code, end.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    await assert_no_trace(admin, pair[0], name)
    assert ends(pair[0]) == {"failed": 1}
    again = await sent(pair[1].stub, [big(name, name)] * BIG_MESSAGES)
    await again.done_writing()
    assert (await again).imported == 10 * BIG_MESSAGES
