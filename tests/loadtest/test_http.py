from __future__ import annotations

import asyncio

import pytest

from app.loadtest.errors import RequestError
from app.loadtest.http import Connection, Response
from tests.loadtest.fake_app import FakeApp

PATH = b"/template-details?id=5"


def to(app: FakeApp, timeout_s: float = 5.0) -> Connection:
    return Connection("127.0.0.1", app.port, timeout_s)


def facts(response: Response) -> tuple[int, str, bytes]:
    return response.status, response.source, response.body


async def test_requests_share_one_connection() -> None:
    async with FakeApp() as app:
        connection = to(app)
        answers = [await connection.get(PATH) for _ in range(3)]
        connection.close()
        assert app.connections == 1
    assert [facts(answer) for answer in answers] == [
        (200, source, b'{"id":5,"name":"x"}') for source in ("origin", "l2", "l2")
    ]


async def test_a_response_that_comes_byte_by_byte_is_whole() -> None:
    async with FakeApp(faults={1: "crumbs", 2: "crumbs"}) as app:
        connection = to(app)
        assert facts(await connection.get(PATH)) == (200, "origin", b'{"id":5,"name":"x"}')
        assert facts(await connection.get(PATH)) == (200, "l2", b'{"id":5,"name":"x"}')
        connection.close()


async def test_the_source_of_one_response_does_not_stick_to_the_next() -> None:
    async with FakeApp(faults={2: "no source"}) as app:
        connection = to(app)
        assert [(await connection.get(PATH)).source for _ in range(3)] == ["origin", "", "l2"]
        connection.close()


async def test_a_kept_connection_that_the_server_closed_is_asked_for_again_once_on_a_new_one() -> None:
    async with FakeApp(faults={2: "close"}) as app:
        connection = to(app)
        await connection.get(PATH)
        assert (await connection.get(PATH)).status == 200
        assert (app.requests, app.connections) == (3, 2)
        connection.close()


async def test_a_server_that_closes_again_is_an_error_and_not_asked_a_third_time() -> None:
    async with FakeApp(faults={2: "close", 3: "close"}) as app:
        connection = to(app)
        await connection.get(PATH)
        with pytest.raises(RequestError, match="connection closed"):
            await connection.get(PATH)
        assert app.requests == 3
        assert (await connection.get(PATH)).status == 200
        connection.close()


async def test_a_connection_that_ends_with_its_response_is_replaced_without_a_retry() -> None:
    async with FakeApp(faults={1: "last"}) as app:
        connection = to(app)
        assert (await connection.get(PATH)).status == 200
        assert (await connection.get(PATH)).status == 200
        assert (app.requests, app.connections) == (2, 2)
        connection.close()


@pytest.mark.parametrize(("fault", "kind"), [("cut", "cut in mid-response"), ("garbage", "malformed response")])
async def test_a_broken_response_is_an_error_not_retried_and_the_next_request_works(fault: str, kind: str) -> None:
    async with FakeApp(faults={2: fault}) as app:
        connection = to(app)
        await connection.get(PATH)
        with pytest.raises(RequestError, match=kind):
            await connection.get(PATH)
        assert app.requests == 2
        assert (await connection.get(PATH)).status == 200
        connection.close()


async def test_a_late_response_is_a_timeout_and_never_taken_for_the_next_one() -> None:
    async with FakeApp(faults={1: "hang"}) as app:
        connection = to(app, timeout_s=30)
        await connection.open()
        connection._timeout_s = 0.5
        with pytest.raises(RequestError, match="timeout"):
            await connection.get(PATH)
        connection._timeout_s = 30
        await connection.get(PATH)
        assert app.connections == 2
        connection.close()


async def test_a_cancelled_request_gives_its_connection_up() -> None:
    async with FakeApp(faults={1: "hang"}) as app:
        connection = to(app)
        request = asyncio.create_task(connection.get(PATH))
        await app.reached.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await connection.get(PATH)).status == 200
        connection.close()


async def test_nobody_listening_is_a_refused_connection() -> None:
    async with FakeApp() as app:
        connection = to(app)
    with pytest.raises(RequestError, match="connection refused"):
        await connection.get(PATH)
    with pytest.raises(RequestError, match="connection refused"):
        await connection.open()
