"""Other applications on the page: away, hanging, talking nonsense. Real sockets; the peer is the test's."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.concurrency.resolver import Resolver
from app.live import http as http_module
from app.live import peers as peers_module
from app.live.http import HttpError, Place, asked
from app.live.peers import FRESH_S, MAX_EVENT_BYTES, Peer, Peers
from app.live.sample import Sample
from tests.faults.polling import until

PATIENCE_S = 20.0

Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A server that answers each connection as `serve` says; `asked` are the requests."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.asked: list[bytes] = []
        self.place = Place("127.0.0.1", 0)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            await self.serve(writer)
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Fake]:
    fake = Fake(serve)
    server = await asyncio.start_server(fake.connected, "127.0.0.1", 0)
    fake.place = Place("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield fake
    finally:
        server.close()
        await asyncio.sleep(0)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def said(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def sample(**fields: Any) -> dict[str, Any]:
    return {"at": 1.0, "apps": {"app": {**Sample("none", requests=5.0).fields(None), **fields}}}


LANE = {"n": 1, "came_ms": 0, "left_ms": 2, "waits": [{"on": "load", "from_ms": 0, "to_ms": 2}], "end": "loaded"}
PICTURE: dict[str, Any] = {
    "app": "app",
    "mode": "none",
    "key": "7",
    "at": 1.0,
    "callers": 5,
    "loads": 5,
    "took_ms": 2.0,
    "lanes": [
        {"n": 1, "came_ms": 0, "left_ms": 2, "waits": [{"on": "load", "from_ms": 0, "to_ms": 2}], "end": "loaded"}
    ],
}


def peer(fake: Fake, drawn: list[tuple[str, dict[str, Any]]] | None = None, timer: Time | None = None) -> Peer:
    pictures = [] if drawn is None else drawn
    return Peer(
        "other", fake.place, "app", lambda name, picture: pictures.append((name, picture)), timer=timer or Time()
    )


@asynccontextmanager
async def following(one: Peer) -> AsyncIterator[Peers]:
    peers = Peers([one])
    peers.start()
    try:
        yield peers
    finally:
        await peers.aclose(PATIENCE_S)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "RETRY_S", 0.01)


async def test_what_it_says_is_shown_under_the_name_that_it_has_here() -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        text = said("hello", {}) + said("sample", sample()) + said("stampede", PICTURE)
        writer.write(HEAD + b"".join(chunk(text[start : start + 7]) for start in range(0, len(text), 7)))

    drawn: list[tuple[str, dict[str, Any]]] = []
    async with serving(serve) as fake:
        one = peer(fake, drawn)
        async with following(one) as peers:
            await until(lambda: bool(drawn), "it has come to that", PATIENCE_S)
            ((name, heard),) = peers.latest()
    assert (name, heard.mode, heard.requests, heard.up) == ("other", "none", 5.0, True)
    assert drawn == [("other", {**PICTURE, "app": "other"})]
    assert b"GET /events?for=peer HTTP/1.1\r\n" in fake.asked[0]


async def test_one_that_has_never_been_there_is_not_shown_and_one_that_has_gone_is_shown_as_away() -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(said("sample", sample())))

    time = Time()
    async with serving(serve) as fake:
        one = peer(fake, timer=time)
        assert Peers([one]).latest() == []
        async with following(one):
            await until(lambda: one.latest is not None, "it has come to that", PATIENCE_S)
            time.now += FRESH_S + 0.1
            assert one.latest is not None
            assert not one.latest.up


async def test_a_name_with_several_addresses_is_reached_by_the_one_that_answers() -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(said("sample", sample())))

    async with serving(serve) as fake:  # on 127.0.0.1 alone
        fake.place = Place("localhost", fake.place.port)
        one = peer(fake)
        async with following(one):
            await until(lambda: one.latest is not None, "it is heard", PATIENCE_S)


async def test_one_whose_name_nobody_knows_is_tried_again_and_disturbs_nobody() -> None:
    tries = 0

    def unknown(*_: object, **__: object) -> list[tuple[object, ...]]:
        nonlocal tries
        tries += 1
        raise socket.gaierror(-2, "Name or service not known")

    place = Place("nobody.invalid", 80)
    one = Peer("other", place, "app", lambda *_: None, resolver=Resolver(unknown))
    async with following(one):
        await until(lambda: tries >= 3, "it is tried again", PATIENCE_S)
    assert one.latest is None


async def test_a_lookup_of_its_name_that_hangs_is_not_begun_anew_by_each_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "CONNECT_TIMEOUT_S", 0.02)
    lookups, goes_on = 0, threading.Event()

    def hanging(*_: object, **__: object) -> list[tuple[object, ...]]:
        nonlocal lookups
        lookups += 1
        goes_on.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    resolver = Resolver(hanging)
    tries = 0
    addresses = resolver.addresses

    async def counted(host: str) -> list[str]:
        nonlocal tries
        tries += 1
        return await addresses(host)

    monkeypatch.setattr(resolver, "addresses", counted)
    place = Place("nobody.invalid", 80)
    try:
        async with following(Peer("other", place, "app", lambda *_: None, resolver=resolver)):
            await until(lambda: tries >= 3, "it is tried again", PATIENCE_S)
        assert lookups == 1
    finally:
        goes_on.set()


async def test_one_that_hangs_is_given_up_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "SILENCE_S", 0.05)

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD if len(fake.asked) == 1 else b"")

    async with serving(serve) as fake, following(peer(fake)):
        await until(lambda: len(fake.asked) >= 3, "it has come to that", PATIENCE_S)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        HEAD + chunk(b"x" * 65_536) * (MAX_EVENT_BYTES // 65_536 + 1),
        HEAD + b"zz\r\n",
        b"",
    ],
    ids=["no HTTP", "503", "another protocol", "an event without end", "a broken chunk", "nothing"],
)
async def test_one_that_talks_nonsense_is_asked_again_and_shown_when_it_makes_sense(answer: bytes) -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        if len(fake.asked) < 3:
            writer.write(answer)
            await writer.drain()
            writer.close()
        else:
            writer.write(HEAD + chunk(said("sample", sample())))

    async with serving(serve) as fake:
        one = peer(fake)
        async with following(one):
            await until(lambda: one.latest is not None, "it has come to that", PATIENCE_S)
    assert len(fake.asked) == 3


@pytest.mark.parametrize(
    "event",
    [
        b"event: sample\ndata: {\n\n",
        b"event: sample\ndata: " + b"[" * 100_000 + b"\n\n",
        b"event: sample\n\n",
        said("sample", []),
        said("sample", {"apps": []}),
        said("sample", sample(loads_s=-1)),
        said("sample", sample(hits_s=None)),
        said("sample", {"apps": {"another": {}}}),
        said("stampede", []),
        said("stampede", {**PICTURE, "lanes": [LANE] * 201}),
        said("stampede", {**PICTURE, "key": "<script>" * 20}),
        said("stampede", {**PICTURE, "lanes": [{**LANE, "end": "<b>"}]}),
        said("stampede", {**PICTURE, "took_ms": None}),
        said("stampede", {**PICTURE, "took_ms": 10**400}),
        said("mystery", {}),
    ],
)
async def test_an_event_that_is_none_says_nothing_and_the_next_is_heard(event: bytes) -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(event) + chunk(said("sample", sample(requests_s=77.0))))

    drawn: list[tuple[str, dict[str, Any]]] = []
    async with serving(serve) as fake:
        one = peer(fake, drawn)
        async with following(one):
            await until(lambda: one.latest is not None, "it has come to that", PATIENCE_S)
    assert one.latest is not None
    assert one.latest.requests == 77.0
    assert (len(fake.asked), drawn) == (1, [])


async def test_one_whose_name_no_host_can_have_is_no_answer() -> None:
    with pytest.raises(HttpError, match=r"no connection to a\.\.b:80"):
        async with asked(Place("a..b", 80), b"", Resolver()):
            pytest.fail("who answered?")


async def test_when_nobody_looks_any_more_its_connection_is_closed() -> None:
    gone = asyncio.Event()

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)

    async with serving(serve) as fake:
        connected = fake.connected

        async def watched(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await connected(reader, writer)
            gone.set()

        server = await asyncio.start_server(watched, "127.0.0.1", 0)
        fake.place = Place("127.0.0.1", server.sockets[0].getsockname()[1])
        async with following(peer(fake)) as peers:
            await until(lambda: bool(fake.asked), "it has come to that", PATIENCE_S)
            peers.stop()
            async with asyncio.timeout(PATIENCE_S):
                await gone.wait()
        server.close()
