"""What a cached GET costs the server, beside a bare ASGI callable that sends the same bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

from app.embedded.stack import EmbeddedStack
from tests.bench import servers
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.load import load
from tests.bench.servers import Server

TARGET = "/template-details?id=1"
_LOADS = re.compile(rb"^db_hits_total (\S+)$", re.MULTILINE)


class _Cost(NamedTuple):
    """Of a request, in processor time of the server; and requests a second."""

    cpu_us: float
    rps: float


def _http_hit(effort: Effort) -> dict[str, Run]:
    with EmbeddedStack() as stack, servers.app(stack) as app:
        app.get(TARGET)
        cached = app.get(TARGET)
        if ("x-cache", "l1") not in cached.headers:
            raise BenchError("the second read is no hit in the app's own memory")
        with servers.bare(cached) as bare:
            for server in (app, bare):
                load(server.url, [TARGET], seconds=effort.warm_up_s)
            loads = _database_loads(app)
            ours, theirs = _measure(app, effort), _measure(bare, effort)
            if _database_loads(app) != loads:
                raise BenchError("not every request was served from the cache")
    return {"http_hit": Run(ours.cpu_us, theirs.cpu_us), "http_hit_rps": Run(ours.rps, theirs.rps)}


def _measure(server: Server, effort: Effort) -> _Cost:
    before = server.cpu_s()
    done = load(server.url, [TARGET], seconds=effort.load_s)
    return _Cost((server.cpu_s() - before) / done.requests * 1e6, done.requests / done.seconds)


def _database_loads(app: Server) -> float:
    found = _LOADS.search(app.get("/metrics").body)
    if found is None:
        raise BenchError("the app shows no db_hits_total")
    return float(found[1])


_BASELINE = "a bare ASGI callable that sends the same bytes on the same uvicorn"

HTTP_HIT = Subject(
    [
        Figure("http_hit", "µs", baseline=_BASELINE, ratio_at_most=1.35),
        Figure("http_hit_rps", "req/s", baseline=_BASELINE),
    ],
    _http_hit,
)
"""Processor time of the server a request, by its process' own accounting, and requests a second; in mode `full`."""
