"""9 to 12: what was recorded is all there, takes bounded room, and can be read and made again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from app.loom.capture import CaptureConfig
from app.loom.recording.session import load
from tests.loom.account import WAIT_S
from tests.loom.backend import ECHO_INITIAL, Backend
from tests.loom.conftest import UNLIMITED, serving
from tests.loom.defects.front import Front, fronted
from tests.loom.test_command import loom as process
from tests.loom.test_command import probing
from tests.loom.test_memory import KEPT_BYTES, SLACK_BYTES, TIMEOUT_S, flags_of
from tests.loom.test_replay import loom as command

CALLERS, CALLS_EACH = 100, 10
LARGE = 20_000_000


async def test_09_no_record_is_lost_at_100_callers(rules: Path | None, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    calls = CALLERS * CALLS_EACH
    async with serving(Backend()) as (_, port), fronted(port, rules, CaptureConfig(session=path)) as front:

        async def calling(caller: int) -> None:
            unary = front.channel.unary_unary("/test.Interop/Unary")
            for number in range(CALLS_EACH):
                request = f"{caller}/{number}".encode()
                assert await unary(request, timeout=TIMEOUT_S) == request

        await asyncio.gather(*(calling(caller) for caller in range(CALLERS)))
        listed = await front.get("/api/calls")
        assert listed["kept"] + listed["evicted"] == calls
        assert f'{{method="/test.Interop/Unary",status="OK"}} {calls}.0' in await front.metrics()
        dropped = (await front.get("/api/state"))["dropped"]
        assert (dropped["recorder"], dropped["session"]) == (0, 0)
    found = load(path, 2 * calls)
    assert found.problems == []
    assert len(found.records) == calls
    asked = {f"{caller}/{number}".encode() for caller in range(CALLERS) for number in range(CALLS_EACH)}
    assert {record.messages[0].data for record in found.records} == asked
    assert all([kept.data for kept in each.messages] == [each.messages[0].data] * 2 for each in found.records)


@pytest.mark.parametrize("lane", ["relay", "intercept"])
async def test_10_eight_calls_of_20_mb_at_once_take_bounded_memory_and_a_short_list(lane: str, tmp_path: Path) -> None:
    async with (
        serving(Backend()) as (_, port),
        process(port, *flags_of(lane, tmp_path)) as running,
        probing(running) as http,
    ):
        watched = psutil.Process(running.process.pid)
        async with grpc.aio.insecure_channel(running.target, options=UNLIMITED) as channel:
            unary = channel.unary_unary("/test.Interop/Unary")
            assert await unary(b"warm", timeout=WAIT_S) == b"warm"
            before = peak = watched.memory_info().rss
            body = bytes(LARGE)
            under_way = asyncio.gather(*(unary(body, timeout=TIMEOUT_S) for _ in range(8)))
            while not under_way.done():
                peak = max(peak, watched.memory_info().rss)
                await asyncio.sleep(0.05)
            assert [answer == body for answer in await under_way] == [True] * 8
        answer = await http.get("/api/calls")
        assert len(answer.content) < 20_000
        rows = answer.json()["calls"]
        assert [row["statusName"] for row in rows] == ["OK"] * 9
        told = await http.get(f"/api/calls/{rows[0]['id']}")
        assert [each["size"] for each in told.json()["messages"]] == [LARGE, LARGE]
        assert len(told.content) < LARGE / 2
        assert max(peak, watched.memory_info().rss) - before < KEPT_BYTES + SLACK_BYTES
        assert await running.end() == 0


async def test_11_neither_a_torn_line_nor_one_over_4_mb_ends_a_reload_or_a_replay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.jsonl"
    capture = CaptureConfig(session=path)
    backend = Backend()
    async with serving(backend) as (_, port):
        async with fronted(port, capture=capture) as front:
            assert await front.channel.unary_unary("/test.Interop/Unary")(b"first") == b"first"
            large = front.channel.stream_unary("/test.Interop/ClientStream")([bytes(1_000_000)] * 5)
            assert await large == b"5000000"
            assert await front.channel.unary_unary("/test.Interop/Unary")(b"last") == b"last"
        first, long, last = path.read_bytes().splitlines(keepends=True)
        assert len(long) > 4 << 20
        path.write_bytes(first + first[:50] + b"\n" + long + last + last[:-9])
        async with fronted(port, capture=capture) as front:
            rows = await front.ended(3)
            assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in (first, long, last)]
            told = await front.get(f"/api/calls/{rows[1]['id']}")
            assert [each["size"] for each in told["messages"]] == [1_000_000] * 5 + [7]
        assert [f"{path}:{line}: " in caplog.text for line in (1, 2, 3, 4, 5)] == [False, True, False, False, True]
        backend.seen.clear()
        again = await asyncio.to_thread(command, "--backend", f"127.0.0.1:{port}", "--replay", str(path), "--json")
        assert (again.returncode, json.loads(again.stdout)["lines_skipped"]) == (0, 2)
        assert [len(seen.requests) for seen in backend.seen] == [1, 5, 1]


async def replayed(front: Front, row: Any) -> Any:
    answer = await front.http.post(f"/api/replay/{row['id']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_12_a_replay_from_the_page_has_all_metadata_and_all_messages_and_tells_what_came_of_it(
    rules: Path | None,
) -> None:
    backend, metadata = Backend(), (("x-id", "1"), ("x-id", "2"), ("x-raw-bin", b"\0\xff"), (ECHO_INITIAL, "echo"))
    up = contextlib.AsyncExitStack()
    _, port = await up.enter_async_context(serving(backend))
    async with up, fronted(port, rules) as front:
        call = front.channel.stream_stream("/test.Interop/Bidi")(metadata=metadata)
        for size in (1, 2, 3):
            await call.write(b"sizes %d" % size)
            assert await call.read() == b"r" * size
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        (row,) = await front.ended(1)
        same = await replayed(front, row)
        assert (same["sameStatus"], same["sameBody"]) == (True, True)
        first, again = backend.seen
        assert again.requests == first.requests == [b"sizes 1", b"sizes 2", b"sizes 3"]
        assert [pair for pair in again.metadata if pair[0].startswith("x-")] == list(metadata)
        assert [each["size"] for each in same["replay"]["messages"] if each["direction"] == "response"] == [1, 2, 3]
        await up.aclose()
        failed = await replayed(front, row)
        assert (failed["sameStatus"], failed["sameBody"]) == (False, False)
        assert failed["replay"]["statusName"] == "UNAVAILABLE"


async def test_12_a_replay_from_the_command_line_of_which_all_fails_has_a_status_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    async with serving(Backend()) as (_, port), fronted(port, capture=CaptureConfig(session=path)) as front:
        for _ in range(3):
            assert await front.channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
    server = grpc.aio.server()  # which knows none of the methods
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = await asyncio.to_thread(command, "--replay", str(path), "--backend", f"127.0.0.1:{port}")
    await server.stop(0)
    assert ended.returncode == 1
    assert ended.stdout.count("status: OK → UNIMPLEMENTED") == 3
