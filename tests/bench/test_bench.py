"""The benchmark itself: what it writes, and that its load client tells when there is nothing to measure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.bench import grpc_load
from tests.bench.__main__ import NAMES, main
from tests.bench.figure import BenchError, Figure, Result, Run
from tests.bench.grpc_echo import UNARY
from tests.bench.load import CONNECTIONS, run_load
from tests.bench.loom_process import echo

RESPONSE = b"HTTP/1.1 200 OK\r\nage: 1\r\ncontent-length: 5\r\nx-cache: l2\r\n\r\nhello"


@asynccontextmanager
async def serving(*parts: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that sends `parts` one after the other for every request, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", asked


def test_every_figure_that_is_promised_can_be_taken() -> None:
    assert NAMES == [
        "singleflight_100x50ms",
        "singleflight_overhead_us",
        "l1_read_ns",
        "http_hit",
        "http_hit_rps",
        "live_page_cpu",
        "grpc_unary_hit",
        "grpc_unary_hit_rps",
        "watch_fanout_ms",
        "watch_fanout_p50_ms",
        "import_100k_rss_mb",
        "import_100k_s",
        "rss_mb_idle",
        "rss_mb_after_100k",
        "loom_unary_cpu_us",
        "loom_unary_one_by_one_us",
        "loom_added_p50_ms",
        "loom_stream_us_per_msg",
        "loom_rss_mb",
        "loom_open_files",
        "loom_slow_reader_mb",
        "inspector_first_paint_ms",
        "inspector_filter_ms",
    ]


def test_figures_are_printed_and_written_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    wanted = ["singleflight_100x50ms", "singleflight_overhead_us"]
    assert main(["--quick", "--out", str(out), *(word for name in wanted for word in ("--only", name))]) == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    assert [figure["name"] for figure in document] == wanted
    for figure in document:
        assert set(figure) == {"name", "value", "unit", "baseline", "ratio"}
        assert figure["value"] > 0
        assert figure["ratio"] == pytest.approx(figure["value"] / figure["baseline"], rel=0.01)
    printed = capsys.readouterr().out
    assert all(name in printed for name in wanted)


def test_a_result_is_the_median_of_its_runs_and_its_ratio_that_of_their_ratios() -> None:
    runs = [Run(1, 1), Run(10, 2), Run(3, 100)]
    result = Result(Figure("name", "ms", baseline="another"), runs)
    assert (result.value, result.baseline, result.ratio) == (3, 2, 1)


@pytest.mark.parametrize(
    ("run", "holds"),
    [(Run(52, 1), True), (Run(52.1, 1), False), (Run(51, 1, sound=False), False)],
)
def test_a_bar_holds_up_to_its_value_and_only_where_all_else_that_it_asks_is_so(run: Run, holds: bool) -> None:
    figure = Figure("name", "ms", baseline="another", at_most=52, and_also="1 call")
    assert Result(figure, [run]).holds is holds
    assert figure.bar == "≤ 52 ms, 1 call"


@pytest.mark.parametrize(("run", "holds"), [(Run(135, 100), True), (Run(136, 100), False), (Run(1, 0.5), False)])
def test_a_bar_may_be_on_the_ratio(run: Run, holds: bool) -> None:
    figure = Figure("name", "ms", baseline="another", ratio_at_most=1.35)
    assert Result(figure, [run]).holds is holds
    assert figure.bar == "≤ 1.35 × the baseline"


async def test_load_sends_the_targets_in_turn_and_exactly_as_many_as_asked_for() -> None:
    async with serving(RESPONSE) as (url, asked):
        done = await run_load(url, ["/a", "/b"], requests=500)
    assert done.requests == 500
    assert done.seconds > 0
    assert sorted(set(asked)) == [b"GET /a HTTP/1.1", b"GET /b HTTP/1.1"]
    assert asked.count(b"GET /a HTTP/1.1") == asked.count(b"GET /b HTTP/1.1") == 250


async def test_load_ends_after_its_time_with_every_response_in() -> None:
    async with serving(RESPONSE) as (url, asked):
        done = await run_load(url, ["/"], seconds=0.1)
    assert done.requests == len(asked) >= CONNECTIONS


@pytest.mark.parametrize("cut", [3, 30, RESPONSE.index(b"hello"), len(RESPONSE) - 1])
async def test_load_takes_responses_that_come_in_pieces(cut: int) -> None:
    async with serving(RESPONSE[:cut], RESPONSE[cut:]) as (url, _):
        assert (await run_load(url, ["/"], requests=100)).requests == 100


@pytest.mark.parametrize(
    "response",
    [
        RESPONSE.replace(b"200 OK", b"503 No"),
        RESPONSE.replace(b"content-length: 5\r\n", b""),
        RESPONSE + b"more",
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_response_to_measure_nothing_by_ends_the_load(response: bytes) -> None:
    async with serving(response) as (url, _):
        with pytest.raises(BenchError):
            await run_load(url, ["/"], requests=100)


async def test_a_server_that_hangs_ends_the_load_at_its_deadline() -> None:
    async with serving() as (url, _):
        with pytest.raises(BenchError, match="did not end"):
            await run_load(url, ["/"], requests=100, deadline_s=0.1)


async def test_a_server_that_is_not_there_is_said_so(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(BenchError, match="cannot load"):
        await run_load(f"http://127.0.0.1:{unused_tcp_port_factory()}", ["/"], requests=1)


@asynccontextmanager
async def grpc_serving(
    answer: bytes, status: grpc.StatusCode = grpc.StatusCode.OK
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every call of `/s/m` so, and what it was asked."""
    asked: list[bytes] = []

    async def method(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        asked.append(request)
        if status is not grpc.StatusCode.OK:
            await context.abort(status, "not now")
        return answer

    server = grpc.aio.server()
    handlers = {"m": grpc.unary_unary_rpc_method_handler(method)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("s", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", asked
    finally:
        await server.stop(None)


@pytest.mark.parametrize("answer", [b"", b"x" * 100, b"x" * 100_000])
async def test_grpc_load_counts_the_calls_that_were_answered(answer: bytes) -> None:
    async with grpc_serving(answer) as (target, asked):
        done = await grpc_load.run_load(target, "/s/m", b"question", seconds=0.1)
    assert done.requests == len(asked) >= grpc_load.CONNECTIONS * grpc_load.CALLS_A_CONNECTION
    assert set(asked) == {b"question"}


@pytest.mark.parametrize("requests", [1, 500])
async def test_grpc_load_makes_exactly_as_many_calls_as_asked_for(requests: int) -> None:
    async with grpc_serving(b"answer") as (target, asked):
        done = await grpc_load.run_load(target, "/s/m", b"question", requests=requests)
    assert done.requests == len(asked) == requests


async def test_a_call_that_fails_ends_grpc_load_with_its_status() -> None:
    async with grpc_serving(b"", grpc.StatusCode.RESOURCE_EXHAUSTED) as (target, _):
        with pytest.raises(BenchError, match="grpc-status: 8, grpc-message: not now"):
            await grpc_load.run_load(target, "/s/m", b"", seconds=0.1)


async def test_grpc_load_says_when_there_is_no_server(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(BenchError, match="cannot load"):
        await grpc_load.run_load(f"127.0.0.1:{unused_tcp_port_factory()}", "/s/m", b"", seconds=0.1)


def test_the_quick_backend_answers_a_real_client_as_any_grpc_server_does() -> None:
    messages = [b"", b"first", b"x" * 20_000, b"last"]
    with echo("frame_echo") as backend, grpc.insecure_channel(backend.grpc_target) as channel:
        call = channel.unary_unary(UNARY)
        assert [call(message, timeout=30, wait_for_ready=True) for message in messages] == messages
        calls = [call.future(b"%d" % number, timeout=30) for number in range(50)]
        assert [each.result() for each in calls] == [b"%d" % number for number in range(50)]
