"""Loom and the backend behind it, each in a process of its own, and somebody who watches the inspector."""

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
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tests.bench.figure import BenchError
from tests.bench.servers import STOP_TIMEOUT_S, Server

_ROOT = Path(__file__).resolve().parents[2]
_OK = re.compile(rb'^loom_proxy_requests_total\{method="([^"]+)",status="OK"\} (\S+)$', re.MULTILINE)
_NOT_RECORDED = re.compile(rb'^loom_records_dropped_total\{sink="(?:recorder|session)"\} (\S+)$', re.MULTILINE)
_BLINDED = re.compile(rb"^loom_connections_blinded_total\{.*\} (\S+)$", re.MULTILINE)


def counted(loom: Server, method: str) -> int:
    """How many calls of the method have ended well."""
    counts = {name.decode(): float(count) for name, count in _OK.findall(loom.get("/metrics").body)}
    return int(counts.get(method, 0))


def until(holds: Callable[[], bool]) -> None:
    """Raises `BenchError` where it does not hold before long."""
    ends_at = time.monotonic() + STOP_TIMEOUT_S
    while not holds():
        if time.monotonic() > ends_at:
            raise BenchError("Loom did not tell of every call that it passed")
        time.sleep(0.05)


def assert_all_seen(loom: Server) -> None:
    """Raises `BenchError` unless Loom has decoded and recorded all that passed."""
    metrics = loom.get("/metrics").body
    if any(float(count) for count in _BLINDED.findall(metrics)):
        raise BenchError("Loom could not decode all that passed")
    if any(float(count) for count in _NOT_RECORDED.findall(metrics)):
        raise BenchError("Loom did not record all that passed")


@contextmanager
def echo(module: str = "grpc_echo") -> Iterator[Server]:
    """The backend, a module of this package."""
    with _started([sys.executable, "-m", f"tests.bench.{module}"]) as (process, line):
        target = f"127.0.0.1:{int(line)}"
        yield Server(f"http://{target}", target, psutil.Process(process.pid))


@contextmanager
def proxy(backend: str) -> Iterator[Server]:
    """Loom in front of it, that records every call into a session's file, too."""
    addresses = ["--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0", "--backend", backend]
    command = [sys.executable, "-m", "app", "loom", *addresses, "--session", "bench", "--log", "error", "--json"]
    with tempfile.TemporaryDirectory() as home, _started(command, {"HOME": home}) as (process, line):
        document = json.loads(line)
        yield Server(document["ui"], document["listen"], psutil.Process(process.pid))


@contextmanager
def watched(loom: Server) -> Iterator[None]:
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
