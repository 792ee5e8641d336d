"""Clients that give up while a load is in hand: they leave alone, and the last one takes the load along."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import grpc
import pytest

from app.cache.protection import Singleflight
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest, GetTemplateDetailsResponse
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from app.storage.postgres import Connection
from app.storage.templates import LOAD_MARK
from tests.faults.held import HELD, HeldLoads
from tests.faults.in_process import Served, served
from tests.faults.metrics import scrape
from tests.faults.polling import until

GONE_S = 0.2
"""How soon after its last caller a load's query must be gone from the server."""
ROUNDS = 5
"""The machine's other work adds to that time, so it must hold in one of so many rounds, and all else in each."""
LONG_MS, SHORT_MS = 30_000, 200
CALLERS = 30

Start = Callable[..., Awaitable[Served]]
Call: TypeAlias = "grpc.aio.UnaryUnaryCall[GetTemplateDetailsRequest, GetTemplateDetailsResponse]"

cold_ids = itertools.count(1)
"""Ids that no test of this module has read."""


class HttpCall:
    """One GET on a connection of its own, sent; the client may hang up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def get(cls, app: Served, template_id: int) -> HttpCall:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.http_port)
        writer.write(b"GET /template-details?id=%d HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n" % template_id)
        await writer.drain()
        return cls(reader, writer)

    async def status(self) -> int:
        """Of the whole answer."""
        head, _, body = (await self._reader.read()).partition(b"\r\n\r\n")
        self._writer.close()
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        assert lengths == [b"content-length: %d" % len(body)]
        return int(head.split(b" ")[1])

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()


@pytest.fixture
async def start(database_url: str, redis_url: str) -> AsyncIterator[Start]:
    """Call it with settings for a running service, which is left with no task that it did not have at its start."""
    async with AsyncExitStack() as services:
        at_start: set[asyncio.Task[object]] = set()

        async def make(**settings: object) -> Served:
            app = await services.enter_async_context(served(database_url, redis_url, **settings))
            at_start.update(asyncio.all_tasks())
            return app

        yield make
        own = asyncio.current_task()

        def left() -> list[asyncio.Task[object]]:
            # gRPC waits for the next call in a task, a new one after each call.
            return [t for t in asyncio.all_tasks() - at_start - {own} if "AioServer._request_" not in repr(t)]

        await until(lambda: not left(), "no task is left")


@asynccontextmanager
async def stubs(app: Served) -> AsyncIterator[Callable[..., Call]]:
    """Call it with an id, and perhaps a deadline, for a call that is under way."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{app.grpc_port}") as channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]

        def call(template_id: int, timeout: float | None = 60.0) -> Call:
            begun: Call = stub.GetTemplateDetails(GetTemplateDetailsRequest(id=template_id), timeout=timeout)
            return begun

        yield call


@pytest.fixture
def loading(admin: Connection) -> Callable[[], Awaitable[int]]:
    """How many load queries run on the server now."""

    async def count() -> int:
        found: int = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND pid <> pg_backend_pid() AND position($1 IN query) > 0",
            LOAD_MARK,
        )
        return found

    return count


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many reads have joined a flight, or begun one."""
    count = 0
    join = Singleflight.read

    def joining(*args: Any) -> Any:
        nonlocal count
        count += 1
        return join(*args)

    monkeypatch.setattr(Singleflight, "read", joining)
    return lambda: count


async def all_is_quiet(app: Served) -> None:
    """No request is in flight and no flight in the air; the pool is whole: as many loads as it has connections run."""
    await until(lambda: nothing_in_flight(app), "no request in flight")
    statuses = await asyncio.gather(*(read(app, next(cold_ids)) for _ in range(app.runtime.settings.database_pool_max)))
    assert set(statuses) == {200}


async def nothing_in_flight(app: Served) -> bool:
    return (await scrape(app.http_url))("http_in_flight_requests") == 0


async def ended_by_http(app: Served, status: int, count: int) -> bool:
    """Whether so many reads over HTTP have ended with this status; 499 where the client had hung up."""
    labels = {"path": "/template-details", "method": "GET", "status": f"{status}"}
    return (await scrape(app.http_url))("http_request_total", **labels) == count


async def in_flight_by_grpc(app: Served, count: int) -> bool:
    """By the server's account: clients know that they have given up before it does."""
    return (await scrape(app.http_url))("grpc_in_flight_requests") == count


async def read(app: Served, template_id: int) -> int:
    return await (await HttpCall.get(app, template_id)).status()


@pytest.mark.parametrize("how", [HttpCall.close, HttpCall.reset], ids=["close", "reset"])
async def test_http_clients_who_hang_up_leave_one_load_for_the_rest(
    start: Start,
    loading: Callable[[], Awaitable[int]],
    loads: Callable[[], Awaitable[int]],
    held: HeldLoads,
    how: Callable[[HttpCall], None],
) -> None:
    app = await start(**HELD)
    before, key = await loads(), next(cold_ids)
    async with held:
        calls = [await HttpCall.get(app, key) for _ in range(CALLERS)]
        await until(lambda: one(loading), "the load runs")
        leaving, staying = calls[: CALLERS // 2], calls[CALLERS // 2 :]  # the first one, whose flight it is, among them
        for call in leaving:
            how(call)
        await until(lambda: ended_by_http(app, 499, len(leaving)), "those who hung up have left")
    assert await asyncio.gather(*(call.status() for call in staying)) == [200] * len(staying)
    assert await loads() - before == 1
    assert await ended_by_http(app, 499, len(leaving))
    assert await ended_by_http(app, 200, len(staying))
    scraped = await scrape(app.http_url)
    assert scraped("db_hits_total") == 1
    assert scraped("http_in_flight_requests") == 0


@pytest.mark.parametrize("how", [HttpCall.close, HttpCall.reset], ids=["close", "reset"])
@pytest.mark.parametrize(("mode", "queries"), [("none", 8), ("mutex", 1), ("singleflight", 1)])
async def test_when_all_http_clients_hang_up_the_query_is_gone_at_once(
    start: Start,
    loading: Callable[[], Awaitable[int]],
    loads: Callable[[], Awaitable[int]],
    mode: str,
    queries: int,
    how: Callable[[HttpCall], None],
) -> None:
    app = await start(**HELD, mode=mode, load_delay_ms=LONG_MS, database_pool_max=8)
    before = await loads()
    for _ in range(ROUNDS):
        key = next(cold_ids)
        calls = [await HttpCall.get(app, key) for _ in range(CALLERS)]
        await until(lambda: as_many(loading, queries), "the loads run")
        for call in calls:
            how(call)
        gone_s = await until(lambda: none(loading), "the query is gone")
        assert await loads() == before
        await until(lambda: nothing_in_flight(app), "no request in flight")
        if gone_s < GONE_S:
            break
    assert gone_s < GONE_S


async def test_the_next_caller_after_all_have_left_starts_anew_and_the_pool_is_whole(
    start: Start, loading: Callable[[], Awaitable[int]], held: HeldLoads
) -> None:
    app = await start(**HELD, load_delay_ms=SHORT_MS, database_pool_max=4)
    for number in range(1, 4):
        key = next(cold_ids)
        async with held:
            calls = [await HttpCall.get(app, key) for _ in range(5)]
            await until(lambda: one(loading), "the load runs")
            for call in calls:
                call.reset()
            reading = asyncio.create_task(read(app, key))  # while the cancelled one unwinds
            await until(lambda: ended_by_http(app, 499, 5 * number), "all have left")  # noqa: B023 - called here
        assert await reading == 200
    await all_is_quiet(app)


@pytest.mark.parametrize("way", ["cancel", "deadline"])
async def test_grpc_callers_who_give_up_leave_one_load_for_the_rest(
    start: Start,
    loading: Callable[[], Awaitable[int]],
    loads: Callable[[], Awaitable[int]],
    held: HeldLoads,
    joined: Callable[[], int],
    way: str,
) -> None:
    app = await start(**HELD)
    before, key = await loads(), next(cold_ids)
    async with stubs(app) as call:
        async with held:
            leaving = [call(key, 1.0 if way == "deadline" else 60.0) for _ in range(CALLERS // 2)]
            staying = [call(key) for _ in range(CALLERS // 2)]
            await until(lambda: one(loading), "the load runs")
            if way == "cancel":
                await until(lambda: joined() == CALLERS, "all have joined the flight")
                for one_call in leaving:
                    one_call.cancel()
            expected = {"cancel": grpc.StatusCode.CANCELLED, "deadline": grpc.StatusCode.DEADLINE_EXCEEDED}[way]
            assert {await one_call.code() for one_call in leaving} == {expected}
            await until(lambda: in_flight_by_grpc(app, len(staying)), "those who gave up have left")
        answers = await asyncio.gather(*staying)
        assert {answer.template.id for answer in answers} == {key}
    assert await loads() - before == 1
    assert (await scrape(app.http_url))("db_hits_total") == 1


@pytest.mark.parametrize("way", ["cancel", "deadline", "connection lost"])
async def test_when_all_grpc_callers_give_up_the_query_is_gone_at_once(
    start: Start, loading: Callable[[], Awaitable[int]], loads: Callable[[], Awaitable[int]], way: str
) -> None:
    app = await start(**HELD, load_delay_ms=LONG_MS)
    before = await loads()
    for _ in range(ROUNDS):
        key = next(cold_ids)
        async with stubs(app) as call:
            calls = [call(key, 4.0 if way == "deadline" else 60.0) for _ in range(CALLERS)]
            await until(lambda: one(loading), "the load runs")
            if way == "cancel":
                for one_call in calls:
                    one_call.cancel()
            if way == "deadline":
                await asyncio.wait([asyncio.ensure_future(one_call.code()) for one_call in calls])
            if way != "connection lost":
                gone_s = await until(lambda: none(loading), "the query is gone")
        if way == "connection lost":
            gone_s = await until(lambda: none(loading), "the query is gone")
        assert await none(loading)
        assert await loads() == before
        if gone_s < GONE_S:
            break
    assert gone_s < GONE_S


async def test_http_and_grpc_callers_of_one_cold_key_share_one_load(
    start: Start, loads: Callable[[], Awaitable[int]], held: HeldLoads, joined: Callable[[], int]
) -> None:
    app = await start(**HELD)
    before, key = await loads(), next(cold_ids)
    async with stubs(app) as call:
        async with held:
            http = [await HttpCall.get(app, key) for _ in range(CALLERS)]
            over_grpc = [call(key) for _ in range(CALLERS)]
            await until(lambda: joined() == 2 * CALLERS, "all have joined the flight")
        assert await asyncio.gather(*(one_call.status() for one_call in http)) == [200] * CALLERS
        assert {answer.template.id for answer in await asyncio.gather(*over_grpc)} == {key}
    assert await loads() - before == 1
    scraped = await scrape(app.http_url)
    assert scraped("singleflight_shared_total") == 2 * CALLERS - 1


async def test_the_flight_goes_on_for_grpc_when_all_http_clients_have_hung_up_and_the_other_way_round(
    start: Start,
    loading: Callable[[], Awaitable[int]],
    loads: Callable[[], Awaitable[int]],
    held: HeldLoads,
    joined: Callable[[], int],
) -> None:
    app = await start(**HELD)
    before = await loads()
    async with stubs(app) as call:
        async with held:
            key = next(cold_ids)
            http = [await HttpCall.get(app, key) for _ in range(5)]
            await until(lambda: one(loading), "the load runs")
            over_grpc = call(key)
            await until(lambda: joined() == 6, "all have joined the flight")
            for http_call in http:
                http_call.reset()
            await until(lambda: ended_by_http(app, 499, 5), "those who hung up have left")
        assert (await over_grpc).template.id == key
        assert await loads() - before == 1

        async with held:
            key = next(cold_ids)
            over_grpc = call(key)
            await until(lambda: one(loading), "the load runs")
            http = [await HttpCall.get(app, key) for _ in range(5)]
            await until(lambda: joined() == 12, "all have joined the flight")
            over_grpc.cancel()
            await until(lambda: in_flight_by_grpc(app, 0), "who gave up has left")
        assert await asyncio.gather(*(http_call.status() for http_call in http)) == [200] * 5
        assert await loads() - before == 2


async def test_clients_who_come_and_go_at_random_leave_nothing(start: Start) -> None:
    """Hang-ups at every stage of a request: unsent, queued, looking in Redis, loading, answered."""
    app = await start(load_delay_ms=20, database_pool_max=4, cache_ttl_s=0.05)
    keys = [next(cold_ids) for _ in range(5)]

    async def come_and_go(number: int) -> None:
        for turn in range(12):
            call = await HttpCall.get(app, keys[(number + turn) % len(keys)])
            await asyncio.sleep((number * 7 + turn * 3) % 40 / 1000)
            (call.reset if turn % 2 else call.close)()

    await asyncio.gather(*(come_and_go(number) for number in range(20)))
    await all_is_quiet(app)


async def one(count: Callable[[], Awaitable[int]]) -> bool:
    return await count() == 1


async def none(count: Callable[[], Awaitable[int]]) -> bool:
    return await count() == 0


async def as_many(count: Callable[[], Awaitable[int]], number: int) -> bool:
    return await count() == number
