"""The inspector's HTTP API on a Loom that runs: what it shows against what was sent, and whom it shows it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from app.loom.bootstrap import Config, HostPort, Loom, running
from app.loom.capture import CaptureConfig
from app.loom.inspector.search import SECONDS, Search, Wanted
from app.loom.recording.recorder import Recorder
from app.loom.recording.ring import Ring
from app.loom.schema.schema import Schema
from tests.loom.account import WAIT_S, eventually
from tests.loom.backend import Backend
from tests.loom.conftest import serving
from tests.loom.recording.calls import unary as recorded_unary
from tests.loom.test_capture import ANYWHERE, interop_file

HELLO = b"\n\x07welcome"


@dataclass
class Watched:
    loom: Loom
    backend: Backend
    channel: grpc.aio.Channel
    http: httpx.AsyncClient

    async def get(self, path: str, status: int = 200) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def unary(self, request: bytes = HELLO, **options: Any) -> Any:
        return await self.channel.unary_unary("/test.Interop/Unary")(request, timeout=WAIT_S, **options)

    async def one(self) -> Any:
        (row,) = (await self.get("/api/calls"))["calls"]
        return await self.get(f"/api/calls/{row['id']}")


@asynccontextmanager
async def watching(
    ui: HostPort = ANYWHERE, *, schema: bool = True, is_ui_open: bool = False, rules: Path | None = None
) -> AsyncIterator[Watched]:
    backend = Backend()
    async with serving(backend) as (_, port):
        capture = CaptureConfig(schema=Schema([interop_file()]) if schema else None)
        behind = HostPort("127.0.0.1", port)
        config = Config(ANYWHERE, behind, ui, stop_s=1, capture=capture, is_ui_open=is_ui_open, rules=rules)
        async with (
            running(config) as loom,
            grpc.aio.insecure_channel(str(loom.listen)) as channel,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{loom.ui.port}", timeout=WAIT_S) as http,
        ):
            await loom.capture.schemas.schema()
            yield Watched(loom, backend, channel, http)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with watching() as made:
        yield made


async def test_a_call_is_shown_decoded_with_all_that_came_with_it(watched: Watched) -> None:
    metadata = (("authorization", "Bearer s3cret"), ("x-id", "1"), ("x-id", "2"), ("x-raw-bin", b"\x00\xff"))
    await watched.unary(metadata=metadata)
    (row,) = (await watched.get("/api/calls"))["calls"]
    assert (row["method"], row["statusName"], row["streamKind"]) == ("/test.Interop/Unary", "OK", "unary")
    assert (row["live"], row["requests"], row["responses"]) == (False, 1, 1)
    shown = await watched.one()
    assert [(each["direction"], each["json"]) for each in shown["messages"]] == [
        ("request", {"text": "welcome"}),
        ("response", {"text": "welcome"}),
    ]
    assert shown["messages"][0]["raw"] == HELLO.hex()
    assert [value for name, value in shown["metadata"] if name == "x-id"] == ["1", "2"]
    assert ["authorization", "[redacted]"] in shown["metadata"]
    assert "s3cret" not in json.dumps(shown)
    assert "$LOOM_AUTH" in shown["grpcurl"]
    assert str(watched.loom.listen) in shown["grpcurl"]
    assert ["grpc-status", "0"] in shown["trailers"]


async def test_an_error_is_shown_as_the_client_got_it(watched: Watched) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await watched.unary(metadata=(("x-status", "5"), ("x-message-bin", "gone — weg".encode())))
    shown = await watched.one()
    assert (shown["statusName"], shown["statusCode"], shown["grpcMessage"]) == ("NOT_FOUND", 5, "gone — weg")
    assert ["x-why", "asked for"] in shown["trailers"]


async def test_without_a_schema_fields_are_shown_by_number_and_nonsense_as_bytes() -> None:
    async with watching(schema=False) as watched:
        await watched.unary()
        await watched.unary(b"\xff\xff")
        first, second = reversed((await watched.get("/api/calls"))["calls"])
        shown = (await watched.get(f"/api/calls/{first['id']}"))["messages"][0]
        assert shown["fields"] == [{"field": 1, "wire": "len", "value": "welcome"}]
        shown = (await watched.get(f"/api/calls/{second['id']}"))["messages"][0]
        assert shown["base64"] == "//8="


async def test_a_call_is_seen_while_it_is_under_way_and_its_end_follows(watched: Watched) -> None:
    async with watched.http.stream("GET", "/api/stream") as events, asyncio.timeout(WAIT_S):
        assert events.headers["content-type"].startswith("text/event-stream")
        lines = events.aiter_lines()
        assert await anext(lines) == ": watching"
        call = asyncio.ensure_future(watched.channel.unary_unary("/test.Interop/Held")(b"held"))
        await watched.backend.arrived.wait()
        row = await _row(lines)
        assert (row["live"], row["statusName"], row["method"]) == (True, None, "/test.Interop/Held")
        assert (await watched.get("/api/state"))["live"] == 1
        watched.backend.go_on.set()
        await call
        while (ended := await _row(lines))["live"]:
            pass
        assert (ended["id"], ended["live"], ended["statusName"]) == (row["id"], False, "OK")


async def _row(lines: AsyncIterator[str]) -> Any:
    while True:
        line = await anext(lines)
        if line.startswith("data: "):
            return json.loads(line.removeprefix("data: "))["calls"][-1]


async def test_identical_calls_in_flight_are_flagged_with_their_number_and_cost(watched: Watched) -> None:
    held = watched.channel.unary_unary("/test.Interop/Held")
    calls = [asyncio.ensure_future(held(b"same")) for _ in range(3)]

    async def all_there() -> bool:
        return len(watched.backend.seen) == 3

    await eventually(all_there)
    watched.backend.go_on.set()
    await asyncio.gather(*calls)
    rows = (await watched.get("/api/calls"))["calls"]
    assert {row["duplicates"]["calls"] for row in rows} == {3}
    assert rows[0]["duplicates"]["totalMs"] > 0
    assert "loom_duplicate_inflight_total" in (await watched.http.get("/metrics")).text


async def test_pages_follow_each_other_and_bad_questions_are_told_what_is_right(watched: Watched) -> None:
    for number in range(5):
        await watched.unary(b"\n\x01" + str(number).encode())
    first = await watched.get("/api/calls?limit=2")
    second = await watched.get(f"/api/calls?limit=2&before={first['next']}")
    third = await watched.get(f"/api/calls?limit=2&before={second['next']}")
    ids = [row["id"] for page in (first, second, third) for row in page["calls"]]
    assert ids == [record.id for record in watched.loom.capture.ring.newest_first()]
    assert third["next"] is None
    assert "no number from 1" in (await watched.get("/api/calls?limit=0", 400))["error"]
    assert "no such call" in (await watched.get("/api/calls/none", 404))["error"]
    assert "not kept" in (await watched.get("/api/calls?before=none", 404))["error"]
    assert "is wanted" in (await watched.get("/api/search", 400))["error"]
    assert "since: 'now' is no number" in (await watched.get("/api/search?body=x&since=now", 400))["error"]


async def test_bodies_and_metadata_are_searched_methods_counted_and_all_exported_and_cleared(watched: Watched) -> None:
    await watched.unary(metadata=(("x-tenant", "Blue"),))
    await watched.unary(b"\n\x05other")
    with pytest.raises(grpc.aio.AioRpcError):
        await watched.unary(b"\n\x04more", metadata=(("x-status", "13"),))
    welcome = watched.loom.capture.ring.newest_first()[2].id
    assert (await watched.get("/api/search?body=WELC"))["ids"] == [welcome]
    assert (await watched.get("/api/search?metadata=x-tenant: blue"))["ids"] == [welcome]
    (method,) = (await watched.get("/api/methods"))["methods"]
    assert (method["calls"], method["errors"], method["statuses"]) == (3, 1, {"OK": 2, "INTERNAL": 1})
    assert sum(method["buckets"]) == 3
    exported = (await watched.http.get("/api/export")).text.splitlines()
    assert json.loads(json.loads(exported[0])["request"][0]["json"]) == {"text": "welcome"}
    assert [json.loads(line)["statusName"] for line in exported] == ["OK", "OK", "INTERNAL"]
    assert (await watched.http.post("/api/clear")).json() == {"kept": 0}
    assert (await watched.get("/api/calls"))["calls"] == []


async def test_what_is_not_listed_any_more_is_searched_and_shown_and_then_only_what_has_changed(
    watched: Watched,
) -> None:
    watched.loom.capture.ring._max_records = 2
    await watched.unary()
    welcome = watched.loom.capture.ring.newest_first()[0].id
    for _ in range(3):
        await watched.unary(b"\n\x05other")
    assert welcome not in [row["id"] for row in (await watched.get("/api/calls"))["calls"]]
    found = await watched.get("/api/search?body=welcome")
    assert (found["ids"], found["isWhole"]) == ([welcome], True)
    shown = await watched.get(f"/api/calls/{welcome}")
    assert (shown["timestamp"], shown["messages"][0]["json"]) == (found["oldest"], {"text": "welcome"})
    assert (await watched.get("/api/state"))["olderHeld"] == 2
    assert len((await watched.get(f"/api/search?metadata=te:&since={found['at'] - 60}"))["ids"]) == 4
    assert (await watched.get(f"/api/search?metadata=te:&since={found['at'] + 60}"))["ids"] == []
    await watched.http.post("/api/clear")
    assert await watched.get("/api/search?body=welcome") | {"at": 0} == {
        "ids": [], "at": 0, "oldest": None, "isWhole": True,
    }  # fmt: skip
    assert "no such call" in (await watched.get(f"/api/calls/{welcome}", 404))["error"]


def test_a_search_ends_in_time_and_says_how_far_it_has_come() -> None:
    recorder = Recorder(Ring())
    for call in range(4):
        for event in recorded_unary(call):
            recorder(event)
    held = list(recorder.ring.held())
    ticks = iter([0.0, 0.0, 0.0, SECONDS, SECONDS])
    search = Search(Wanted.of("", "x-id: 1"), lambda: next(ticks))
    assert not search.look_through([(each, None) for each in held])
    assert (search.ids, search.last) == ([held[0].id, held[1].id], held[1])


async def test_names_that_are_not_this_machines_and_other_sites_are_refused(watched: Watched) -> None:
    own = f"127.0.0.1:{watched.loom.ui.port}"
    for headers, status in [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "["}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": f"http://{own}", "sec-fetch-site": "same-origin"}, 200),
        ({"host": f"localhost:{watched.loom.ui.port}"}, 200),
    ]:
        for path in ("/api/clear", "/api/calls"):
            method = "POST" if path == "/api/clear" else "GET"
            answer = await watched.http.request(method, path, headers=headers)
            assert answer.status_code == status, (headers, path)
            assert "access-control-allow-origin" not in answer.headers
    answer = await watched.http.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await watched.http.get("/metrics", headers={"host": "loom:9998"})).status_code == 200


async def test_off_loopback_a_token_is_asked_for_but_by_probes() -> None:
    async with watching(HostPort("0.0.0.0", 0)) as watched:
        token = watched.loom.token
        assert token is not None
        assert str(HostPort("::", 5).here) == "localhost:5"
        assert watched.loom.link == f"http://localhost:{watched.loom.ui.port}/?token={token}"
        assert "error" in await watched.get("/api/calls", 401)
        await watched.get("/?token=wrong", 401)
        for path in ("/live", "/ready", "/health", "/metrics"):
            assert (await watched.http.get(path)).status_code == 200
        bearer = await watched.http.get("/api/calls", headers={"authorization": f"Bearer {token}"})
        assert bearer.status_code == 200
        taken = await watched.http.get(f"/?token={token}")
        assert (taken.status_code, taken.headers["location"]) == (303, "/")
        assert "httponly; " in taken.headers["set-cookie"].lower() + "; "
        assert "samesite=strict" in taken.headers["set-cookie"].lower()
        await watched.get("/api/calls")
    async with watching(HostPort("0.0.0.0", 0), is_ui_open=True) as watched:
        assert watched.loom.token is None
        await watched.get("/api/calls")
        assert (await watched.http.get("/api/calls", headers={"host": "evil.example"})).status_code == 421


async def test_a_stream_ends_when_loom_does() -> None:
    async with asyncio.timeout(3 * WAIT_S), watching() as watched:
        client = httpx.AsyncClient(base_url=str(watched.http.base_url), timeout=WAIT_S)
        events = await client.send(client.build_request("GET", "/api/stream"), stream=True)
        lines = events.aiter_lines()
        assert await anext(lines) == ": watching"
    async with asyncio.timeout(WAIT_S):
        assert [line async for line in lines if line and not line.startswith(":")] == []
    await client.aclose()


async def test_what_was_evicted_is_told(watched: Watched) -> None:
    ring: Ring = watched.loom.capture.ring
    ring._max_records = 2
    for _ in range(4):
        await watched.unary()
    page = await watched.get("/api/calls")
    assert (page["kept"], page["evicted"]) == (2, 2)


async def test_a_call_is_made_again_edited_or_not_and_shown_beside_its_original(watched: Watched) -> None:
    await watched.unary(metadata=(("authorization", "Bearer s3cret"), ("x-id", "1")))
    (row,) = (await watched.get("/api/calls"))["calls"]
    path = f"/api/replay/{row['id']}"
    refused = await watched.http.post(path)
    assert (refused.status_code, refused.json()["error"]) == (400, "its authorization was redacted, and is not given")
    given = {"metadata": {"authorization": "Bearer other"}}
    same = (await watched.http.post(path, json=given)).json()
    assert (same["sameStatus"], same["sameBody"]) == (True, True)
    assert dict(watched.backend.seen[-1].metadata)["authorization"] == "Bearer other"
    assert "other" not in json.dumps(same)
    edited = (await watched.http.post(path, json={**given, "messages": [{"text": "else"}]})).json()
    assert edited["differences"] == [{"where": "response[0].text", "before": "welcome", "after": "else"}]
    assert edited["replay"]["messages"][-1]["json"] == {"text": "else"}
    for bad, said in [
        ({**given, "messages": [{"txt": 1}]}, "request 0: "),
        ({**given, "messages": {}}, "a list is wanted"),
        ({"metadata": []}, "authorization was redacted"),
        ({"what": 1}, "an edit is an object"),
    ]:
        answer = await watched.http.post(path, json=bad)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
    assert (await watched.http.post("/api/replay/none")).status_code == 404
    assert len((await watched.get("/api/calls"))["calls"]) == 1


async def test_rules_that_are_not_there_are_not_read_again(watched: Watched) -> None:
    answer = await watched.http.post("/api/rules/reload")
    assert answer.status_code == 409
    assert "--mutate" in answer.json()["error"]


async def test_a_watcher_that_leaves_is_forgotten(watched: Watched) -> None:
    async with watched.http.stream("GET", "/api/stream") as events:
        assert await anext(events.aiter_lines()) == ": watching"
        assert (await watched.get("/api/state"))["watching"] == 1

    async def is_forgotten() -> bool:
        return bool((await watched.get("/api/state"))["watching"] == 0)

    await eventually(is_forgotten)
