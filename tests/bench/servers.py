"""The servers under measurement, each in a process of its own: the app, and one that only sends what the app sent."""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from tests.bench.figure import BenchError

ADDED_BY_UVICORN = frozenset({"date"})
STOP_TIMEOUT_S = 10.0
_LOADS = re.compile(rb"^db_hits_total (\S+)$", re.MULTILINE)


class Answer(NamedTuple):
    """A response: the headers that the application itself set, and the body."""

    headers: list[tuple[str, str]]
    body: bytes


class Cost(NamedTuple):
    """Of a request, in processor time of the server; and requests a second."""

    cpu_us: float
    rps: float


class Server(NamedTuple):
    """A running server, by HTTP and gRPC as far as it speaks them, and its process' own accounting."""

    url: str
    grpc_target: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """Processor time of the process since it began, user and system, all threads."""
        times = self.process.cpu_times()
        return times.user + times.system

    def database_loads(self) -> float:
        """How many the app has counted."""
        found = _LOADS.search(self.get("/metrics").body)
        if found is None:
            raise BenchError("the app shows no db_hits_total")
        return float(found[1])

    def rss_mb(self) -> float:
        """Resident memory, in 10^6 bytes."""
        return self.process.memory_info().rss / 1e6

    def get(self, target: str) -> Answer:
        """One GET on a connection of its own. Raises `BenchError` unless it is answered with 200."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise BenchError(f"no answer from {self.url}: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise BenchError(f"{self.url}{target} answered {response.status}")
        headers = [(name.lower(), value) for name, value in response.getheaders()]
        return Answer([header for header in headers if header[0] not in ADDED_BY_UVICORN], body)


@contextmanager
def app(stack: EmbeddedStack) -> Iterator[Server]:
    """A fresh replica of the template service, whose cached values outlive any measurement."""
    settings = {
        "APP_DATABASE_URL": stack.postgres.url("app"),
        "APP_REDIS_URL": stack.redis.url(),
        "APP_CACHE_TTL_S": "3600",
        "APP_MODE": "full",
        "APP_LOG_LEVEL": "warning",
    }
    with Replica(settings) as replica:
        yield Server(replica.http_url, replica.grpc_target, psutil.Process(replica.pid))


@contextmanager
def bare(answer: Answer) -> Iterator[Server]:
    """A bare ASGI callable that gives `answer` to everything, on the app's uvicorn, event loop and parser."""
    body = base64.b64encode(answer.body).decode("ascii")
    with _program("tests.bench.bare", {"headers": answer.headers, "body": body}) as (port, process):
        server = Server(f"http://127.0.0.1:{port}", "", process)
        if server.get("/") != answer:
            raise BenchError("the bare server does not send what the app sends")
        yield server


@contextmanager
def bare_grpc(method: str, message: bytes) -> Iterator[Server]:
    """A bare grpc.aio handler that answers `method`, such as `/package.Service/Method`, with `message`."""
    document = {"method": method, "message": base64.b64encode(message).decode("ascii")}
    with _program("tests.bench.bare_grpc", document) as (port, process):
        yield Server("", f"127.0.0.1:{port}", process)


@contextmanager
def _program(module: str, document: object) -> Iterator[tuple[int, psutil.Process]]:
    """A module that reads one line of JSON, prints the port that it serves, and ends with its standard input."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(document).encode("ascii") + b"\n")
            stdin.flush()
            port = stdout.readline().strip()
            if not port:
                raise BenchError("the bare server did not start")
            yield int(port), psutil.Process(process.pid)
        finally:
            stdin.close()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
