"""Loom's memory, as the system counts it, under what is large or stands still."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from app.loom.proxy import framing
from app.loom.proxy.framing import PREFACE
from app.loom.proxy.limits import Limits
from app.loom.recording.ring import MAX_BYTES, MAX_RECORDS
from tests.loom import wire
from tests.loom.account import WAIT_S, eventually
from tests.loom.backend import Backend
from tests.loom.conftest import UNLIMITED, serving
from tests.loom.raw import client
from tests.loom.test_command import loom, probing
from tests.loom.wire import REQUEST_HEADERS, data, message

KEPT_BYTES = Limits().messages_bytes + MAX_BYTES
"""What Loom may keep of messages under way and of calls that went by."""
SLACK_BYTES = 100_000_000
"""What else a burst may take, such as the allocator's own."""
FLAT_BYTES = 40_000_000
"""Of a stream of 131 MB: what is kept of it, and what a process takes when it first does something. `make bench` has
the figure."""
TIMEOUT_S = 100.0
_RESPONSES = re.compile(r'^loom_messages_total\{direction="response"\} (\S+)$', re.MULTILINE)
_WIDEST = 2**31 - 1
RULES = {"rules": [{"method": "*", "headers": {"delete": ["x-nowhere"]}}]}
"""They match every call and change none."""


def flags_of(lane: str, tmp_path: Path) -> list[str]:
    if lane == "relay":
        return []
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(RULES))
    return ["--mutate", str(rules)]


async def responses(http: httpx.AsyncClient) -> int:
    """How many have passed."""
    found = _RESPONSES.search((await http.get("/metrics")).text)
    assert found is not None
    return int(float(found[1]))


@pytest.mark.parametrize("lane", ["relay", "intercept"])
async def test_memory_stays_flat_behind_a_reader_that_stops_and_the_backend_is_blocked(
    lane: str, tmp_path: Path
) -> None:
    backend, number, size = Backend(), 2_000, 65_536
    greeting = PREFACE + wire.settings(initial_window_size=_WIDEST)
    greeting += wire.frame(wire.WINDOW_UPDATE, 0, 0, (_WIDEST - 65_535).to_bytes(4))
    async with (
        serving(backend) as (_, port),
        loom(port, *flags_of(lane, tmp_path)) as running,
        probing(running) as http,
        client(int(running.target.rpartition(":")[2]), greeting) as caller,
    ):
        await caller.next(framing.SETTINGS)
        process = psutil.Process(running.process.pid)
        before = process.memory_info().rss
        stream = [(name, "/test.Interop/ServerStream" if name == ":path" else value) for name, value in REQUEST_HEADERS]
        asked = message(b"sizes" + b" %d" % size * number)
        caller.send(caller.block(1, stream), data(1, asked[:16_000]), data(1, asked[16_000:], end=True))
        await eventually(lambda: at_least(1, http))
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
        moved = -1
        while moved != (moved := await responses(http)):  # noqa: ASYNC110 - told by nobody
            await asyncio.sleep(0.3)
        assert 0 < moved < number / 2
        assert not backend.seen[0].done.is_set()
        assert process.memory_info().rss - before < FLAT_BYTES
        caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = 0
        while received < number * size:
            piece = await asyncio.wait_for(caller.reader.read(1 << 20), WAIT_S)
            assert piece
            received += len(piece)
        await eventually(lambda: at_least(number, http))
        assert process.memory_info().rss - before < FLAT_BYTES
        assert await running.end() == 0


async def at_least(number: int, http: httpx.AsyncClient) -> bool:
    return await responses(http) >= number


async def test_1000_large_unary_calls_at_once_are_recorded_rightly_in_bounded_memory() -> None:
    backend, calls = Backend(), 1_000
    request = b"sizes 314159".ljust(271_828)
    async with serving(backend) as (_, port), loom(port) as running, probing(running) as http:
        process = psutil.Process(running.process.pid)
        async with grpc.aio.insecure_channel(running.target, options=UNLIMITED) as channel:
            unary = channel.unary_unary("/test.Interop/Unary")
            assert await unary(b"warm", timeout=WAIT_S) == b"warm"
            before = peak = process.memory_info().rss

            async def size() -> int:
                return len(await unary(request, timeout=TIMEOUT_S))

            under_way = asyncio.gather(*(size() for _ in range(calls)))
            while not under_way.done():
                peak = max(peak, process.memory_info().rss)
                await asyncio.sleep(0.05)
            assert await under_way == [314_159] * calls
        assert peak - before < KEPT_BYTES + SLACK_BYTES
        metrics = (await http.get("/metrics")).text
        assert f'loom_proxy_requests_total{{method="/test.Interop/Unary",status="OK"}} {calls + 1}.0' in metrics
        assert not re.search(r"^loom_(records_dropped|calls_u\w+|connections_blinded)_total\S* [1-9]", metrics, re.M)
        listed = (await http.get(f"/api/calls?limit={MAX_RECORDS}")).json()
        assert listed["kept"] + listed["evicted"] == calls + 1
        assert {(row["statusName"], row["requests"], row["responses"]) for row in listed["calls"]} == {("OK", 1, 1)}
        newest = (await http.get(f"/api/calls/{listed['calls'][0]['id']}")).json()
        assert [(each["direction"], each["size"]) for each in newest["messages"]] == [
            ("request", 271_828),
            ("response", 314_159),
        ]
        assert await running.end() == 0
