"""One table of requests, answered ahead of the framework and by it: whole responses and all metrics are the same."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from app.api.http import hits
from app.api.http.app import create_app
from app.api.http.arrivals import ARRIVED
from app.cache.coherence import Coherence
from app.cache.entry import Entry
from app.cache.floors import Floors
from app.cache.least import LeastLoads
from app.cache.loader import Loader, Policy, Reading
from app.cache.memory import MemoryCache
from app.cache.origin import Loaded, Origin
from app.cache.protection import Singleflight
from app.cache.recovery import Recovery
from app.concurrency.breaker import CircuitBreaker
from app.concurrency.clock import wall
from app.concurrency.tasks import TaskSet
from app.domain.errors import DeadlineExceededError, OverloadedError, StoppingError, StorageUnavailableError
from app.health import Health
from app.service import TemplateService
from app.telemetry.metrics import Metrics
from tests.api.grpc.fake_cache import NoRepository, payload_of
from tests.cache.loader_rig import MemoryRemote

PATH = "/template-details"
LONG_LIFE_S = 1_000.0
HIT, NEGATIVE, EXPIRED, EMOJI, FUTURE, COLD = "1", "999", "7", "8", "9", "50"
LONGEST_DIGITS = "123456789012345678"
FAILURES = {
    "600": StorageUnavailableError(7.0),
    "601": OverloadedError(),
    "602": DeadlineExceededError(),
    "603": StoppingError(),
    "604": RuntimeError("a bug"),
}
"""What loads of these keys end with."""
ENDLESS = "605"
"""A load of this key does not end."""
HELD = (HIT, NEGATIVE, EXPIRED, EMOJI, FUTURE, LONGEST_DIGITS)


class ByTemplate:
    """The loader, by number, for the use cases."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    async def read(self, template_id: int) -> Reading:
        return await self._loader.read(str(template_id))

    async def written(self, template_id: int, version: int, payload: bytes | None) -> None:
        await self._loader.written(str(template_id), version, payload)

    async def outdated(self, template_id: int, version: int) -> None:
        await self._loader.outdated(str(template_id), version)


class Site:
    """The HTTP application over a loader whose L1 is filled; with `ahead` reads are answered ahead of the framework."""

    def __init__(self, *, ahead: bool, max_age_s: int = 0) -> None:
        self.stuck = asyncio.Event()
        """Set when a load of `ENDLESS` has begun."""
        self.metrics = Metrics(mode="full", version="0", ttl_s=LONG_LIFE_S)
        self.health = Health({})
        self.memory = MemoryCache(max_entries=100, max_bytes=10_000_000)
        now = wall()  # at which time stands still: ages are whole seconds, and two sites are compared
        for key in HELD:
            payload = None if key == NEGATIVE else payload_of(int(key), "😀" if key == EMOJI else "Dear {{name}}")
            self.memory.put(key, Entry(payload, 3, now - 7.3, LONG_LIFE_S, load_cost_s=0.01))
        self.memory.put(EXPIRED, Entry(payload_of(7), 4, now - 99.3, 60.0, load_cost_s=0.01))
        self.memory.put(FUTURE, Entry(payload_of(9), 4, now + 60.0, LONG_LIFE_S, load_cost_s=0.01))
        remote = MemoryRemote()
        self.loader = Loader(
            origin=Origin(
                self._load, ttl_s=LONG_LIFE_S, negative_ttl_s=2.0, jitter=0.0, deadline_s=5.0, events=self.metrics
            ),
            remote=remote,
            protection=Singleflight(max_waiters=None, wait_timeout_s=5.0),
            events=self.metrics,
            least=LeastLoads(LONG_LIFE_S),
            background=TaskSet(limit=10),
            floors=Floors(max_keys=100, life_s=100.0, skew_s=1.0),
            coherence=Coherence(expected=False, grace_s=1.0),
            recovery=Recovery(remote, CircuitBreaker(), max_pending=10, fresh_values=list),
            policy=Policy(early_beta=1.0),
            failures=(),
            memory=self.memory,
            now=lambda: now,
        )
        self.app: ASGIApp = create_app(
            TemplateService(NoRepository(), ByTemplate(self.loader)),
            health=self.health,
            metrics=self.metrics,
            version="0",
            max_body_bytes=1_000,
            max_age_s=max_age_s,
            receive_timeout_s=10.0,
            fresh=self.loader.fresh if ahead else None,
        )
        if ahead:
            self.app._hits._now = lambda: now  # type: ignore[attr-defined]
        else:
            self.app._reads = self.app._app  # type: ignore[attr-defined]

    async def _load(self, key: str) -> Loaded:
        if key in FAILURES:
            raise FAILURES[key]
        if key == ENDLESS:
            self.stuck.set()
            await asyncio.Event().wait()
        return Loaded(payload_of(int(key)), 5) if int(key) < 1_000 and key != NEGATIVE else Loaded(None, 0)

    async def ask(
        self, request: Request, *, state: dict[str, Any] | None = None, leaves: asyncio.Event | None = None
    ) -> Response:
        received: list[Message] = []
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": request.query,
            "root_path": "",
            "headers": [(b"host", b"test"), *request.headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
            "state": state or {},
        }
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await (leaves or asyncio.Event()).wait()  # as a rule the client stays
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            received.append(dict(message))

        await self.app(scope, receive, send)
        start, *bodies = received
        assert start["type"] == "http.response.start"
        assert {message["type"] for message in bodies} == {"http.response.body"}
        assert [message.get("more_body", False) for message in bodies][-1] is False
        return Response(start["status"], list(start["headers"]), b"".join(m.get("body", b"") for m in bodies))

    def counted(self) -> list[str]:
        """All that is exposed of what happened, without how long it took and what the process is."""
        text = b"".join(self.metrics.exposition("text/plain")[0]).decode()
        return [line for line in text.splitlines() if not re.match(r"#|process_|python_|.*_(sum|bucket)\b", line)]


@dataclass(frozen=True)
class Request:
    query: bytes
    method: str = "GET"
    headers: Sequence[tuple[bytes, bytes]] = ()
    path: str = PATH

    def __str__(self) -> str:
        named = " ".join(f"{name.decode()}={value.decode()}" for name, value in self.headers)
        return f"{self.method} {self.path}?{self.query.decode('latin-1')} {named}".strip()


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def plain(key: str) -> Request:
    return Request(b"id=" + key.encode())


def conditional(value: bytes, *more: bytes) -> Request:
    return Request(b"id=1", headers=[(b"if-none-match", each) for each in (value, *more)])


AHEAD = [plain(key) for key in (HIT, EMOJI, FUTURE, LONGEST_DIGITS)] + [
    Request(b"id=1", headers=[(b"x-request-id", b"0F-1.b_2")]),
    Request(b"id=1", headers=[(b"accept", b"text/html"), (b"range", b"bytes=0-3"), (b"if-match", b'"1-9"')]),
    Request(
        b"id=1", headers=[(b"cache-control", b"no-cache"), (b"if-modified-since", b"Sat, 21 Nov 2026 00:00:00 GMT")]
    ),
]
"""What the hit path is there for."""

BY_THE_ROUTES = [
    *(plain(key) for key in (NEGATIVE, EXPIRED, COLD)),
    *(plain(key) for key in FAILURES),
    Request(b"id=600", "HEAD"),
    conditional(b'"1-3"'),
    conditional(b'W/"1-3"'),
    conditional(b"*"),
    conditional(b'"1-2", "1-3"'),
    conditional(b'"1-2"', b'"1-3"'),
    conditional(b'"1-2"'),
    conditional(b""),
    Request(b"id=1", "HEAD"),
    Request(b"id=999", "HEAD"),
    Request(b"id=1", "get"),
    Request(b"id=1", "POST"),
    Request(b"id=1", "PUT"),
    Request(b"id=1", "PATCH"),
    Request(b"id=1", "OPTIONS"),
    Request(b"id=1", "BREW"),
    *(
        Request(query)
        for query in (
            b"",
            b"id",
            b"id=",
            b"id=0",
            b"id=01",
            b"id=00",
            b"id=%31",
            b"id=1%20",
            b"id=+1",
            b"id=-1",
            b"id=1.0",
            b"id=1e3",
            b"id=1_0",
            b"id=0x1",
            b"id=a",
            b"id=\xef\xbc\x91",
            b"id=%EF%BC%91",
            b"id=%D9%A1",
            b"id=\xff",
            b"id=1\x00",
            b"id=1&",
            b"&id=1",
            b"id=1&x=2",
            b"x=2&id=1",
            b"id=1&id=1",
            b"id=1&id=2",
            b"id=1;id=2",
            b"id=1#x",
            b"%69d=1",
            b"ID=1",
            b"id[]=1",
            b"idd=1",
            b"id=1234567890123456789",
            b"id=9223372036854775807",
            b"id=9223372036854775808",
            b"id=" + b"9" * 5_000,
        )
    ),
    Request(b"id=1", path="/Template-details"),
    Request(b"id=1", path="/template-details/"),
    Request(b"id=1", path="/template-detail"),
    Request(b"id=1", path="/templates"),
]
"""What is no hit, or not plainly one."""


def name(request: Request) -> str:
    return str(request)[:60]


@pytest.mark.parametrize("request_", [*AHEAD, *BY_THE_ROUTES], ids=name)
async def test_both_paths_give_the_same_response_and_count_the_same(request_: Request) -> None:
    ahead, framework = Site(ahead=True), Site(ahead=False)
    for _ in range(3):  # the first makes the bytes ready, or fills L1; the next find them
        assert await ahead.ask(request_) == await framework.ask(request_)
    assert ahead.counted() == framework.counted()


@pytest.mark.parametrize("request_", [*AHEAD, *BY_THE_ROUTES[:9]], ids=name)
async def test_the_same_while_draining(request_: Request) -> None:
    ahead, framework = Site(ahead=True), Site(ahead=False)
    for site in (ahead, framework):
        await site.ask(request_)
        site.health.draining = True
    answer = await ahead.ask(request_)
    assert answer == await framework.ask(request_)
    assert (b"connection", b"close") in answer.headers
    assert ahead.counted() == framework.counted()


async def test_the_same_where_the_client_goes_while_it_is_loaded() -> None:
    counted = []
    for ahead in (True, False):
        site = Site(ahead=ahead)
        leaving = asyncio.Event()
        asked = asyncio.create_task(site.ask(plain(ENDLESS), leaves=leaving))
        await asyncio.wait_for(site.stuck.wait(), 10)
        leaving.set()
        assert (await asyncio.wait_for(asked, 10)).status == 499
        counted.append(site.counted())
    assert counted[0] == counted[1]


@pytest.mark.parametrize("request_", AHEAD, ids=name)
async def test_the_same_with_a_max_age(request_: Request) -> None:
    answers = [await Site(ahead=ahead, max_age_s=60).ask(request_) for ahead in (True, False)]
    assert answers[0] == answers[1]
    assert (b"cache-control", b"public, max-age=60") in answers[0].headers


@pytest.mark.parametrize("request_", AHEAD, ids=name)
async def test_a_hit_never_reaches_the_framework(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(ahead=True)
    monkeypatch.setattr(site.app, "_app", None)
    monkeypatch.setattr(site.app, "_reads", None)
    answer = await site.ask(request_)
    assert (answer.status, dict(answer.headers)[b"x-cache"]) == (200, b"l1")


@pytest.mark.parametrize("request_", BY_THE_ROUTES, ids=name)
async def test_what_is_not_plainly_a_hit_is_left_to_the_routes_and_the_reader_that_they_share(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(ahead=True)
    reached = []

    async def framework(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(site.app, "_app", framework)
    monkeypatch.setattr(site.app, "_reads", framework)
    await site.ask(request_)
    assert reached == [request_.path]


@pytest.mark.parametrize("request_", BY_THE_ROUTES, ids=name)
async def test_reads_of_a_template_never_reach_the_framework_and_all_else_does(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(ahead=True)
    monkeypatch.setattr(site.app, "_app", None)
    if request_.path == PATH and request_.method in ("GET", "HEAD"):
        await site.ask(request_)
    else:
        assert (await site.ask(request_)).status == 500


@pytest.mark.parametrize("key", [HIT, COLD])
async def test_the_time_of_a_request_that_waited_to_be_parsed_counts_from_when_it_came(key: str) -> None:
    site = Site(ahead=True)
    await site.ask(plain(key), state={ARRIVED: time.perf_counter() - 100.0})
    text = b"".join(site.metrics.exposition("text/plain")[0]).decode()
    (seconds,) = re.findall(r'http_request_duration_seconds_sum{method="GET",path="/template-details"} (\S+)', text)
    assert 100 <= float(seconds) < 200


async def test_ready_bytes_are_made_once_and_go_with_their_value() -> None:
    site = Site(ahead=True)
    first = await site.ask(plain(HIT))
    slot = site.memory.get(HIT)
    assert slot is not None
    ready = slot.wire
    assert isinstance(ready, hits._Wire)
    assert await site.ask(plain(HIT)) == first
    assert slot.wire is ready
    site.memory.put(HIT, Entry(payload_of(1, "anew"), 4, wall(), LONG_LIFE_S, load_cost_s=0.01))
    anew = await site.ask(plain(HIT))
    assert dict(anew.headers)[b"etag"] == b'"1-4"'
    assert b"anew" in anew.body


async def test_a_response_that_could_not_be_sent_is_counted_and_leaves_nothing_in_flight() -> None:
    site = Site(ahead=True)

    async def broken(_message: Message) -> None:
        raise OSError("the client is gone")

    scope = {"type": "http", "method": "GET", "path": PATH, "query_string": b"id=1", "headers": []}
    with pytest.raises(OSError, match="gone"):
        await site.app(scope, None, broken)  # type: ignore[arg-type]
    assert "http_in_flight_requests 0.0" in site.counted()
