"""What Loom costs: processor time for a unary call and for a streamed message, and time added to a call.

All of it while every call is recorded, into a session's file too, and somebody watches the inspector.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

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
SETTLE_S = 0.4
_ROOT = Path(__file__).resolve().parents[2]
_OK = re.compile(rb'^loom_proxy_requests_total\{method="([^"]+)",status="OK"\} (\S+)$', re.MULTILINE)
_NOT_RECORDED = re.compile(rb'^loom_records_dropped_total\{sink="(?:recorder|session)"\} (\S+)$', re.MULTILINE)
_BLINDED = re.compile(rb"^loom_connections_blinded_total\{.*\} (\S+)$", re.MULTILINE)


def _loom(effort: Effort) -> dict[str, Run]:
    with _backend() as backend, _proxy(backend.grpc_target) as loom, _watched(loom):
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
        metrics = loom.get("/metrics").body
        if any(float(count) for count in _BLINDED.findall(metrics)):
            raise BenchError("Loom could not decode all that passed")
        if any(float(count) for count in _NOT_RECORDED.findall(metrics)):
            raise BenchError("Loom did not record all that passed")
    return {
        "loom_unary_cpu_us": Run(through_us, direct_us),
        "loom_added_p50_ms": Run(passed_ms - alone_ms, alone_ms),
        "loom_stream_us_per_msg": Run(message_us, direct_message_us),
    }


def _cost(server: Server, seconds: float) -> tuple[float, int]:
    """Processor time of the server a call, in µs, under 16 callers, and how many calls there were."""
    before = _settled_cpu_s(server)
    done = load(server.grpc_target, UNARY, REQUEST, seconds=seconds, connections=1)
    return (_settled_cpu_s(server) - before) / done.requests * 1e6, done.requests


def _settled_cpu_s(server: Server) -> float:
    """Its processor time so far, with what it writes and shows a little after the calls."""
    time.sleep(SETTLE_S)
    return server.cpu_s()


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
    before = _settled_cpu_s(server)
    with grpc.insecure_channel(server.grpc_target) as channel, ThreadPoolExecutor(STREAMS) as callers:
        received = sum(callers.map(lambda _: _received(channel, messages // STREAMS), range(STREAMS)))
    return (_settled_cpu_s(server) - before) / received * 1e6


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
    addresses = ["--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0", "--backend", backend]
    command = [sys.executable, "-m", "app", "loom", *addresses, "--session", "bench", "--log", "error", "--json"]
    with tempfile.TemporaryDirectory() as home, _started(command, {"HOME": home}) as (process, line):
        document = json.loads(line)
        yield Server(document["ui"], document["listen"], psutil.Process(process.pid))


@contextmanager
def _watched(loom: Server) -> Iterator[None]:
    """Somebody reads the inspector's stream of events all the time. Raises `BenchError` where it did not last."""
    connection = http.client.HTTPConnection(urlsplit(loom.url).netloc, timeout=STOP_TIMEOUT_S)
    batches: list[int] = []
    is_over = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while piece := response.read1(1 << 20):
                batches.append(piece.count(b"event: calls"))
        is_over.set()

    try:
        connection.request("GET", "/api/stream")
        response = connection.getresponse()
        reader = threading.Thread(target=read, name="bench-watcher")
        reader.start()
        try:
            yield
            if is_over.is_set() or not sum(batches):
                raise BenchError("the inspector's stream of events ended, or told of nothing")
        finally:
            assert connection.sock is not None
            connection.sock.shutdown(socket.SHUT_RDWR)
            reader.join(STOP_TIMEOUT_S)
    except OSError as error:
        raise BenchError(f"the inspector can't be watched: {error}") from error
    finally:
        connection.close()


@contextmanager
def _started(
    command: list[str], environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], bytes]]:
    """A process and its first line; it is stopped in the end."""
    with subprocess.Popen(
        command, cwd=_ROOT, env={**os.environ, **(environment or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
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
"""Processor time of Loom's process, 16 callers or streams on one connection, all of it read, counted, recorded into a
session's file, and watched."""
