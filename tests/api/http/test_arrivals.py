"""Connections by hand, without sockets: what is begun at once, what waits its turn, and what becomes of who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.api.http.arrivals import ARRIVED, CROWD, Arrivals
from app.api.http.protocol import MAX_HEAD_BYTES, BoundedHttpProtocol
from app.telemetry.plain import Count
from tests.api.http.wire import GET, GOOD, put

HIT = 1
COLD = range(1_000, 1_500)
PER_TURN = 2


class FakeTransport(asyncio.Transport):
    """Keeps what is written; says whether it would read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading_now = True
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Site:
    """A server's connections; its application notes what is begun, and answers."""

    def __init__(self, *, crowd: int | None = None) -> None:
        self.in_flight = Count()
        self.arrivals = Arrivals(lambda key: key == str(HIT), in_flight=self.in_flight, per_turn=PER_TURN, crowd=crowd)
        self.begun: list[str] = []
        self.states: dict[str, dict[str, Any]] = {}
        self.state = ServerState()
        self.connections: list[Connection] = []
        self._config = uvicorn.Config(
            self._app, interface="asgi3", ws="none", lifespan="off", log_config=None, access_log=False
        )
        self._config.load()

    def connected(self) -> Connection:
        connection = Connection(BoundedHttpProtocol(self.arrivals, self._config, self.state, {}))
        self.connections.append(connection)
        return connection

    def crowd(self) -> list[Connection]:
        """A connection each for very many cold keys, all of whose requests are received in this turn."""
        crowd = [self.connected() for _ in COLD]
        for connection, key in zip(crowd, COLD, strict=True):
            connection.receives(GET % key)
        return crowd

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["query_string"].decode().removeprefix("id=")
        self.begun.append(name)
        self.states[name] = scope["state"]
        body = b""
        if scope["method"] == "PUT":
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
        text = name.encode() + body
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})


class Connection:
    def __init__(self, protocol: BoundedHttpProtocol) -> None:
        self.protocol = protocol
        self.transport = FakeTransport()
        protocol.connection_made(self.transport)

    def receives(self, data: bytes) -> None:
        assert self.transport.is_reading_now
        self.protocol.data_received(data)

    def is_lost(self) -> None:
        self.protocol.connection_lost(ConnectionResetError())

    @property
    def answers(self) -> list[str]:
        """The bodies of what it was answered."""
        return [answer.partition(b"\r\n\r\n")[2].decode() for answer in self.transport.written.split(b"HTTP/1.1 ")[1:]]

    @property
    def status(self) -> int:
        return int(self.transport.written[9:12])


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """In the end all that was begun has been answered, and nobody is left in the line."""
    site = Site()
    yield site
    await until(lambda: not site.state.tasks and not site.arrivals.waiting)
    for connection in site.connections:
        connection.is_lost()
    assert site.in_flight.value == 0


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came to that")


async def test_a_hit_that_comes_behind_a_crowd_of_misses_is_answered_before_them(site: Site) -> None:
    site.crowd()
    hit = site.connected()
    hit.receives(GET % HIT)
    await until(lambda: hit.answers == [str(HIT)])
    assert len(site.begun) <= 3 * PER_TURN
    assert site.arrivals.waiting > len(COLD) - 4 * PER_TURN


async def test_hits_that_come_while_a_crowd_waits_wait_for_no_more_than_a_turn_of_it(site: Site) -> None:
    site.crowd()
    hit = site.connected()
    for number in range(20):
        before = len(site.begun)
        hit.receives(GET % HIT)
        await until(lambda wanted=number + 1: len(hit.answers) == wanted)  # type: ignore[misc]
        assert len(site.begun) - before <= 1 + 2 * PER_TURN


async def test_while_a_crowd_comes_in_hits_are_begun_and_nothing_else_then_all_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.concurrency.turnstile.LOOK_S", 0.5)
    site = Site(crowd=CROWD)
    crowd = site.crowd()
    await asyncio.sleep(0)
    begun = list(site.begun)
    assert len(begun) == PER_TURN  # nobody waited yet
    hit = site.connected()
    hit.receives(GET % HIT)
    await until(lambda: hit.answers == [str(HIT)])
    assert site.begun == [*begun, str(HIT)]
    await asyncio.sleep(0.5)  # until the next look
    await until(lambda: all(connection.answers for connection in crowd))
    assert site.begun == [*begun, str(HIT), *(str(key) for key in COLD[PER_TURN:])]


async def test_a_crowd_is_begun_a_few_a_turn_in_the_order_in_which_it_came_and_all_are_answered(site: Site) -> None:
    crowd = site.crowd()
    most, before = 0, 0
    while len(site.begun) < len(COLD):
        await asyncio.sleep(0)
        most, before = max(most, len(site.begun) - before), len(site.begun)
    await until(lambda: all(connection.answers for connection in crowd))
    assert most <= PER_TURN
    assert site.begun == [str(key) for key in COLD]
    assert [connection.answers for connection in crowd] == [[str(key)] for key in COLD]
    assert site.arrivals.waiting == site.in_flight.value == 0


async def test_who_comes_alone_is_parsed_at_once(site: Site) -> None:
    connection = site.connected()
    connection.receives(GET % 7)
    assert len(site.state.tasks) == 1
    await until(lambda: connection.answers == ["7"])
    assert ARRIVED not in site.states["7"]


async def test_who_waits_is_in_flight_and_its_time_counts_from_when_it_came(site: Site) -> None:
    site.crowd()
    assert site.in_flight.value == site.arrivals.waiting == len(COLD) - PER_TURN
    await until(lambda: len(site.begun) == len(COLD))
    assert site.in_flight.value == 0
    assert ARRIVED not in site.states[str(COLD[0])]
    assert site.states[str(COLD[-2])][ARRIVED] <= site.states[str(COLD[-1])][ARRIVED]


async def test_nothing_is_read_from_who_waits_and_later_bytes_keep_their_order(site: Site) -> None:
    crowd = site.crowd()
    last = crowd[-1]
    assert crowd[0].transport.is_reading_now
    assert not last.transport.is_reading_now
    await until(lambda: last.transport.is_reading_now)
    last.receives(GET % 8)
    await until(lambda: len(last.answers) == 2)
    assert last.answers == [str(COLD[-1]), "8"]


async def test_pipelined_requests_that_wait_are_answered_in_their_order(site: Site) -> None:
    site.crowd()
    connection = site.connected()
    connection.receives(GET % 3 + GET % HIT + GET % 2)
    await until(lambda: len(connection.answers) == 3)
    assert connection.answers == ["3", str(HIT), "2"]


@pytest.mark.parametrize("cut", [1, 4, 26, 40, len(GET % 9) - 1])
async def test_a_head_that_comes_in_two_parts_waits_with_each_and_is_whole_in_the_end(site: Site, cut: int) -> None:
    head = GET % 9
    site.crowd()
    connection = site.connected()
    connection.receives(head[:cut])
    await until(lambda: connection.transport.is_reading_now)
    site.crowd()
    connection.receives(head[cut:])
    await until(lambda: connection.answers == ["9"])
    assert site.begun.index("9") >= len(COLD)


async def test_a_body_does_not_wait_behind_requests_that_have_not_begun(site: Site) -> None:
    connection = site.connected()
    connection.receives(put(b"Content-Length: %d" % len(GOOD)) + GOOD[:5])
    site.crowd()
    connection.receives(GOOD[5:])
    await until(lambda: bool(connection.answers))
    assert connection.answers == ["1" + GOOD.decode()]
    assert site.arrivals.waiting > len(COLD) - 10 * PER_TURN


async def test_a_request_on_a_connection_that_was_answered_before_waits_as_well(site: Site) -> None:
    connection = site.connected()
    connection.receives(GET % 7)
    await until(lambda: connection.answers == ["7"])
    site.crowd()
    connection.receives(GET % 8)
    await until(lambda: len(connection.answers) == 2)
    assert site.begun == ["7", *map(str, COLD), "8"]


async def test_connections_that_are_lost_while_they_wait_are_never_begun_and_hold_up_nobody(site: Site) -> None:
    crowd = site.crowd()
    await asyncio.sleep(0)
    for connection in crowd[10:-1]:
        connection.is_lost()
    turns = 0
    while str(COLD[-1]) not in site.begun:
        await asyncio.sleep(0)
        turns += 1
    assert site.begun == [*map(str, COLD[:10]), str(COLD[-1])]
    assert turns < 20
    await until(lambda: site.in_flight.value == 0)
    assert site.arrivals.waiting == 0


async def test_a_head_that_is_too_large_waits_for_nobody(site: Site) -> None:
    site.crowd()
    connection = site.connected()
    connection.receives(b"GET /live HTTP/1.1\r\nX: " + b"y" * MAX_HEAD_BYTES)
    assert connection.status == 431
    assert connection.transport.closed


async def test_a_head_that_becomes_too_large_while_it_waits_is_refused_in_its_turn(site: Site) -> None:
    site.crowd()
    connection = site.connected()
    connection.receives(b"GET /live HTTP/1.1\r\nX: " + b"y" * (MAX_HEAD_BYTES // 2))
    await until(lambda: connection.transport.is_reading_now)
    site.crowd()
    connection.receives(b"y" * (MAX_HEAD_BYTES // 2))
    await until(lambda: connection.transport.closed)
    assert connection.status == 431


async def test_what_is_no_http_is_refused_in_its_turn(site: Site) -> None:
    site.crowd()
    connection = site.connected()
    connection.receives(b"hello, is anybody there?\r\n\r\n")
    await until(lambda: connection.transport.closed)
    assert connection.status == 400


async def test_a_request_that_waits_as_the_server_ends_is_answered_and_its_connection_closed(site: Site) -> None:
    crowd = site.crowd()
    idle = site.connected()
    for connection in [*crowd, idle]:
        connection.protocol.shutdown()
    assert idle.transport.closed
    assert len(site.state.tasks) == len(COLD)
    await until(lambda: all(connection.transport.closed for connection in crowd))
    assert [connection.answers for connection in crowd] == [[str(key)] for key in COLD]
    assert all(b"connection: close" in connection.transport.written for connection in crowd)


async def test_the_time_for_a_head_ends_no_connection_whose_head_is_there_and_only_waits(site: Site) -> None:
    whole = site.crowd()[-1]
    half = site.connected()
    half.receives(b"GET /template-de")
    for connection in (whole, half):
        connection.protocol.timeout_keep_alive_handler()
    assert half.transport.closed
    assert not whole.transport.closed
    await until(lambda: whole.answers == [str(COLD[-1])])


@pytest.mark.parametrize(
    ("data", "is_hit"),
    [
        (GET % HIT, True),
        (b"GET /template-details?id=1 HTTP/1.1\r\n", True),
        (GET % 2, False),
        (GET % 11, False),
        (b"GET /template-details?id=1", False),
        (b"GET /template-details?id=", False),
        (b"GET /template-details?id= HTTP/1.1\r\n", False),
        (b"GET /template-details?id=1&x=1 HTTP/1.1\r\n", False),
        (b"GET /template-details?id=\xff HTTP/1.1\r\n", False),
        (b"GET /template-details?id=" + b"1" * 30_000 + b" HTTP/1.1\r\n", False),
        ((GET % HIT).replace(b"GET", b"HEAD"), False),
        (put(b"Content-Length: 23"), False),
        (b"", False),
    ],
)
async def test_only_the_complete_first_line_of_a_get_that_this_process_holds_goes_ahead(
    site: Site, data: bytes, is_hit: bool
) -> None:
    for _ in range(PER_TURN):
        assert site.arrivals.admit(GET % 2)
    assert site.arrivals.admit(data) == is_hit
