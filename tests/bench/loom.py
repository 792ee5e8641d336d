"""What Loom costs: processor time for a unary call and for a streamed message, and time added to a call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import grpc
import psutil

from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.grpc_echo import MESSAGE, STREAM, UNARY
from tests.bench.grpc_load import load
from tests.bench.servers import STOP_TIMEOUT_S, Server

REQUEST = b"r" * 100
CALL_TIMEOUT_S = 60.0
STREAMS = 16
MESSAGES_A_CALL = 4
"""Messages take less time than calls do, so that it takes more of them for a figure."""
_ROOT = Path(__file__).resolve().parents[2]
_OK = re.compile(rb'^loom_proxy_requests_total\{method="([^"]+)",status="OK"\} (\S+)$', re.MULTILINE)
_BLINDED = re.compile(rb"^loom_connections_blinded_total\{.*\} (\S+)$", re.MULTILINE)


def _loom(effort: Effort) -> dict[str, Run]:
    with _backend() as backend, _proxy(backend.grpc_target) as loom:
        for process in (backend, loom):
            _cost(process, effort.warm_up_s)
        before = _counted(loom, UNARY)
        direct_us, _ = _cost(backend, effort.load_s)
        through_us, calls = _cost(loom, effort.load_s)
        alone_ms, _ = _p50(backend, effort.load_s)
        passed_ms, more_calls = _p50(loom, effort.load_s)
        # Loom counts a call when its end has passed, which may be after the client has seen it.
        _until(lambda: _counted(loom, UNARY) - before == calls + more_calls)
        direct_message_us = _message_cost(backend, effort.calls * MESSAGES_A_CALL)
        message_us = _message_cost(loom, effort.calls * MESSAGES_A_CALL)
        if any(float(count) for count in _BLINDED.findall(loom.get("/metrics").body)):
            raise BenchError("Loom could not decode all that passed")
    return {
        "loom_unary_cpu_us": Run(through_us, direct_us),
        "loom_added_p50_ms": Run(passed_ms - alone_ms, alone_ms),
        "loom_stream_us_per_msg": Run(message_us, direct_message_us),
    }


def _cost(server: Server, seconds: float) -> tuple[float, int]:
    """Processor time of the server a call, in µs, under 16 callers, and how many calls there were."""
    before = server.cpu_s()
    done = load(server.grpc_target, UNARY, REQUEST, seconds=seconds, connections=1)
    return (server.cpu_s() - before) / done.requests * 1e6, done.requests


def _p50(server: Server, seconds: float) -> tuple[float, int]:
    """The median time of a call, in ms, from one caller, and how many there were."""
    times: list[float] = []
    with grpc.insecure_channel(server.grpc_target) as channel:
        call = channel.unary_unary(UNARY)
        try:
            call(REQUEST, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
            ends_at = time.perf_counter() + seconds
            while (began := time.perf_counter()) < ends_at:
                if call(REQUEST, timeout=CALL_TIMEOUT_S) != REQUEST:
                    raise BenchError("an answer came changed")
                times.append(time.perf_counter() - began)
        except grpc.RpcError as error:
            raise BenchError(f"a call failed: {error}") from error
    return median(times) * 1e3, len(times) + 1


def _message_cost(server: Server, messages: int) -> float:
    """Processor time of the server a message, in µs, of 16 streams at a time on one connection."""
    before = server.cpu_s()
    with grpc.insecure_channel(server.grpc_target) as channel, ThreadPoolExecutor(STREAMS) as callers:
        received = sum(callers.map(lambda _: _received(channel, messages // STREAMS), range(STREAMS)))
    return (server.cpu_s() - before) / received * 1e6


def _received(channel: grpc.Channel, messages: int) -> int:
    """How many messages came on one stream. Raises `BenchError` unless it is as many as were asked for."""
    count = 0
    try:
        for response in channel.unary_stream(STREAM)(str(messages).encode(), timeout=CALL_TIMEOUT_S):
            if response != MESSAGE:
                raise BenchError("a message came changed")
            count += 1
    except grpc.RpcError as error:
        raise BenchError(f"a stream failed: {error}") from error
    if count != messages:
        raise BenchError(f"{count} of {messages} messages came")
    return count


def _counted(loom: Server, method: str) -> int:
    counts = {name.decode(): float(count) for name, count in _OK.findall(loom.get("/metrics").body)}
    return int(counts.get(method, 0))


def _until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + STOP_TIMEOUT_S
    while not holds():
        if time.monotonic() > ends_at:
            raise BenchError("Loom did not tell of every call that it passed")
        time.sleep(0.05)


@contextmanager
def _backend() -> Iterator[Server]:
    with _started([sys.executable, "-m", "tests.bench.grpc_echo"]) as (process, line):
        target = f"127.0.0.1:{int(line)}"
        yield Server(f"http://{target}", target, psutil.Process(process.pid))


@contextmanager
def _proxy(backend: str) -> Iterator[Server]:
    flags = ["--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0", "--backend", backend, "--log", "warning", "--json"]
    with _started([sys.executable, "-m", "app", "loom", *flags]) as (process, line):
        document = json.loads(line)
        yield Server(document["ui"], document["listen"], psutil.Process(process.pid))


@contextmanager
def _started(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], bytes]]:
    """A process and its first line; it is stopped in the end."""
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            line = stdout.readline()
            if not line:
                raise BenchError(f"{' '.join(command[1:4])} did not start")
            yield process, line
        finally:
            stdin.close()
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


LOOM = Subject(
    [
        Figure(
            "loom_unary_cpu_us", "µs", baseline="the backend's processor time for the same call, direct", at_most=80
        ),
        Figure("loom_added_p50_ms", "ms", baseline="the same call's median time, direct, one caller", at_most=0.2),
        Figure(
            "loom_stream_us_per_msg",
            "µs",
            baseline="the backend's processor time for a message, direct, 16 streams",
            at_most=20,
        ),
    ],
    _loom,
)
"""Processor time of Loom's process, 16 callers or streams on one connection, all of it read and counted."""
