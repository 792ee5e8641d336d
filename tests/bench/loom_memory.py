"""Loom's resident memory and open files: after many calls, and behind a reader that is slow.

All of it while every call is recorded, into a session's file too, and somebody watches the inspector.
"""

from __future__ import annotations

import re
import socket
import time
from typing import Final

from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame, greeting, grpc_call
from tests.bench.grpc_echo import LARGE, LARGE_MESSAGE, UNARY
from tests.bench.grpc_load import load
from tests.bench.loom_process import assert_all_seen, counted, echo, proxy, until, watched
from tests.bench.servers import Server

REQUEST = b"r" * 100
FIRST, LAST = 20_000, 200_000
"""Calls after which memory and files are counted, in a full run."""
STREAMED_BYTES = 600_000_000
STOPS = 6
"""How often the reader stands still on its way."""
READ_BYTES = 1 << 20
WITHIN_MB = 20.0
WITHIN_FILES = 10
"""gRPC, by which Loom asks the backend for its schema, opens a few when it first has more threads."""
SETTLE_S = 1.0
"""For what is written and shown a little after the calls."""
STILL_S = 0.3
LOOK_S = 0.01
TIMEOUT_S = 60.0
_RESPONSES: Final = re.compile(rb'^loom_messages_total\{direction="response"\} (\S+)$', re.MULTILINE)


def _memory(effort: Effort) -> dict[str, Run]:
    share = effort.requests / 100_000
    with echo() as backend, proxy(backend.grpc_target) as loom, watched(loom):
        first_mb, first_files = _after(loom, round(FIRST * share))
        last_mb, last_files = _after(loom, round(LAST * share))
        before_mb = loom.rss_mb()
        highest_mb, was_blocked = _slow(loom, round(STREAMED_BYTES * share) // len(LARGE_MESSAGE))
        assert_all_seen(loom)
    return {
        "loom_rss_mb": Run(last_mb, first_mb, sound=last_mb - first_mb <= WITHIN_MB),
        "loom_open_files": Run(last_files, first_files, sound=last_files - first_files <= WITHIN_FILES),
        "loom_slow_reader_mb": Run(highest_mb, before_mb, sound=was_blocked and highest_mb - before_mb <= WITHIN_MB),
    }


def _after(loom: Server, calls: int) -> tuple[float, int]:
    """Memory in MB, and open files, once there were so many calls in all."""
    load(loom.grpc_target, UNARY, REQUEST, requests=calls - counted(loom, UNARY), connections=1)
    until(lambda: counted(loom, UNARY) == calls)
    time.sleep(SETTLE_S)
    return loom.rss_mb(), loom.process.num_fds()


def _slow(loom: Server, messages: int) -> tuple[float, bool]:
    """The highest memory in MB while so many large messages are read with stops, and whether these stop the sender."""
    host, _, port = loom.grpc_target.rpartition(":")
    headers, body = grpc_call(loom.grpc_target, LARGE, str(messages).encode())
    call = frame(HEADERS, END_HEADERS, 1, headers) + frame(DATA, END_STREAM, 1, body)
    wanted, received, highest_mb, was_blocked = messages * len(LARGE_MESSAGE), 0, 0.0, True
    before = _passed(loom)
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as reader:
            reader.sendall(greeting() + call)
            for stop in range(1, STOPS + 1):
                passed = _still(loom)
                was_blocked = was_blocked and passed - before < messages
                highest_mb = max(highest_mb, loom.rss_mb())
                while received < wanted * stop / STOPS:
                    piece = reader.recv(READ_BYTES)
                    if not piece:
                        raise BenchError("the stream ended before its last message")
                    received += len(piece)
                    highest_mb = max(highest_mb, loom.rss_mb())
            until(lambda: counted(loom, LARGE) == 1)
            ends_at = time.monotonic() + SETTLE_S
            while time.monotonic() < ends_at:  # while it is written into the session's file
                highest_mb = max(highest_mb, loom.rss_mb())
                time.sleep(LOOK_S)
    except OSError as error:
        raise BenchError(f"the stream could not be read: {error}") from error
    return highest_mb, was_blocked


def _still(loom: Server) -> int:
    """How many messages have passed, once no more do."""
    before = -1
    while before != (passed := _passed(loom)):
        before = passed
        time.sleep(STILL_S)
    return passed


def _passed(loom: Server) -> int:
    found = _RESPONSES.search(loom.get("/metrics").body)
    if found is None:
        raise BenchError("Loom does not tell how many messages have passed")
    return int(float(found[1]))


LOOM_MEMORY = Subject(
    [
        Figure(
            "loom_rss_mb",
            "MB",
            baseline="the same process after 20,000 calls",
            and_also=f"within {WITHIN_MB:g} MB of the baseline",
        ),
        Figure(
            "loom_open_files",
            "files",
            baseline="the same process after 20,000 calls",
            and_also=f"within {WITHIN_FILES} of the baseline",
        ),
        Figure(
            "loom_slow_reader_mb",
            "MB",
            baseline="the same process before the stream of 600 MB",
            and_also=f"within {WITHIN_MB:g} MB of the baseline, and the sender made to wait",
        ),
    ],
    _memory,
)
"""After 200,000 calls of 16 callers on one connection; then at its highest while a reader takes 600 MB with stops."""
