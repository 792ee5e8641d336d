"""What Loom costs: processor time for a unary call and for a streamed message, and time added to a call.

All of it while every call is recorded, into a session's file too, and somebody watches the inspector.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

import grpc

from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.grpc_echo import MESSAGE, STREAM, UNARY
from tests.bench.grpc_load import load
from tests.bench.loom_process import assert_all_seen, counted, echo, proxy, until, watched
from tests.bench.servers import Server

REQUEST = b"r" * 100
CALL_TIMEOUT_S = 60.0
STREAMS = 16
MESSAGES_A_CALL = 4
"""Messages take less time than calls do, so that it takes more of them for a figure."""
SETTLE_S = 0.4


def _unary(effort: Effort) -> dict[str, Run]:
    return {
        "loom_unary_cpu_us": _passed("frame_echo", effort),
        "loom_unary_one_by_one_us": _passed("grpc_echo", effort),
    }


def _passed(backend_module: str, effort: Effort) -> Run:
    with _warm(backend_module, effort) as (backend, loom):
        before = counted(loom, UNARY)
        direct_us, _ = _cost(backend, effort.load_s)
        through_us, calls = _cost(loom, effort.load_s)
        # Loom counts a call when its end has passed, which may be after the client has seen it.
        until(lambda: counted(loom, UNARY) - before == calls)
    return Run(through_us, direct_us)


def _loom(effort: Effort) -> dict[str, Run]:
    with _warm("grpc_echo", effort) as (backend, loom):
        before = counted(loom, UNARY)
        alone_ms, _ = _p50(backend, effort.load_s)
        passed_ms, calls = _p50(loom, effort.load_s)
        until(lambda: counted(loom, UNARY) - before == calls)
        direct_message_us = _message_cost(backend, effort.calls * MESSAGES_A_CALL)
        message_us = _message_cost(loom, effort.calls * MESSAGES_A_CALL)
    return {
        "loom_added_p50_ms": Run(passed_ms - alone_ms, alone_ms),
        "loom_stream_us_per_msg": Run(message_us, direct_message_us),
    }


@contextmanager
def _warm(backend_module: str, effort: Effort) -> Iterator[tuple[Server, Server]]:
    """The backend and Loom before it, watched, after some calls. In the end Loom must have seen all that passed."""
    with echo(backend_module) as backend, proxy(backend.grpc_target) as loom, watched(loom):
        for process in (backend, loom):
            _cost(process, effort.warm_up_s)
        yield backend, loom
        assert_all_seen(loom)


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


LOOM_UNARY = Subject(
    [
        Figure(
            "loom_unary_cpu_us",
            "µs",
            baseline="the processor time of a backend that answers many calls at once, for the same call, direct",
            at_most=80,
        ),
        Figure(
            "loom_unary_one_by_one_us",
            "µs",
            baseline="the same of grpc.aio, which answers one call after another",
        ),
    ],
    _unary,
)
"""Processor time of Loom's process for a unary call, 16 callers on one connection, all of it read, counted, recorded
into a session's file, and watched.

Where the backend is quick, as one in Go, calls come and go together, and Loom reads and writes several at a time. One
that takes several times as long as Loom hands it each answer by itself: what the kernel takes for one is then paid for
each call.
"""

LOOM = Subject(
    [
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
"""What a single caller waits longer, and the processor time of Loom's process, 16 streams on one connection, all of it
read, counted, recorded into a session's file, and watched."""
