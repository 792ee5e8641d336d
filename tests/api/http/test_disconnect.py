from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest

from app.api.http.disconnect import ClientDisconnectedError, while_connected
from tests.api.http.conftest import Api


@pytest.fixture
def shared_api() -> Api:
    """One for each test: its counts are looked at."""
    return Api()


Event = MutableMapping[str, Any]


class Client:
    """Sends events when it is told to."""

    def __init__(self, *events: str) -> None:
        self._events: asyncio.Queue[str] = asyncio.Queue()
        for event in events:
            self._events.put_nowait(event)

    def leave(self) -> None:
        self._events.put_nowait("http.disconnect")

    async def receive(self) -> Event:
        return {"type": await self._events.get(), "body": b"", "more_body": False}


async def _value(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def _left_over() -> set[asyncio.Task[Any]]:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_work_for_a_client_that_stays_has_its_value_and_leaves_no_task() -> None:
    assert await while_connected(Client("http.request").receive, _value(7)) == 7
    assert await _left_over() == set()


async def test_work_that_fails_raises_its_own_error_and_leaves_no_task() -> None:
    async def fail() -> int:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        await while_connected(Client().receive, fail())
    assert await _left_over() == set()


async def test_work_is_cancelled_when_its_client_leaves_and_its_task_goes_on() -> None:
    client, begun, ended = Client("http.request"), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def handler() -> str:
        with pytest.raises(ClientDisconnectedError):
            await while_connected(client.receive, work())
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return "answered"

    task = asyncio.create_task(handler())
    await begun.wait()
    assert not ended.is_set()
    client.leave()
    assert await task == "answered"
    assert ended.is_set()


async def test_a_cancellation_from_elsewhere_stays_one_though_the_client_left_too() -> None:
    client, begun = Client(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    for leaves in (False, True):
        begun.clear()
        task = asyncio.create_task(while_connected(client.receive, work()))
        await begun.wait()
        if leaves:
            client.leave()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await _left_over() == set()


async def test_a_deadline_around_the_work_is_still_a_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await while_connected(Client().receive, asyncio.Event().wait())


def _scope(method: str, path: str, query: str, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


async def _statuses(api: Api, scope: dict[str, Any], receive: Any) -> list[int]:
    statuses = []

    async def send(message: Event) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await api.app(scope, receive, send)
    return statuses


def _count(api: Api, method: str, status: int) -> float | None:
    labels = {"method": method, "path": "/template-details", "status": str(status)}
    return api.metrics.registry.get_sample_value("http_request_total", labels)


async def test_a_read_whose_client_leaves_is_given_up_and_counted_as_499(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.cache.hold = asyncio.Event()
    client = Client("http.request")
    request = asyncio.create_task(_statuses(api, _scope("GET", "/template-details", "id=1"), client.receive))
    await api.cache.begun.wait()
    assert api.metrics.registry.get_sample_value("http_in_flight_requests") == 1
    client.leave()
    await request
    assert api.cache.cancelled.is_set()
    assert _count(api, "GET", 499) == 1
    assert api.metrics.registry.get_sample_value("http_in_flight_requests") == 0
    assert caplog.records == []


async def test_a_client_that_leaves_in_mid_upload_is_no_server_error_and_writes_nothing(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    async def cut_short(events: list[Event]) -> Event:
        return events.pop(0)

    events: list[Event] = [
        {"type": "http.request", "body": b'{"name":"a",', "more_body": True},
        {"type": "http.disconnect"},
    ]
    scope = _scope("PUT", "/template-details", "id=1", (b"content-type", b"application/json"))
    with caplog.at_level(logging.DEBUG):
        await _statuses(api, scope, lambda: cut_short(events))
    assert _count(api, "PUT", 499) == 1
    assert _count(api, "PUT", 500) == 0
    assert "request failed" not in caplog.text
    assert api.repository.templates[1].version == 3


async def test_a_write_whose_client_leaves_is_done_and_told_to_the_cache(api: Api) -> None:
    events: list[Event] = [
        {"type": "http.request", "body": b'{"name":"a","body":"b"}', "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Event:
        return events.pop(0)

    scope = _scope("PUT", "/template-details", "id=1", (b"content-type", b"application/json"))
    assert await _statuses(api, scope, receive) == [200]
    assert [version for _, version, _ in api.cache.writes] == [4]
