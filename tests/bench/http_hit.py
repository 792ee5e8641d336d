"""What a cached GET costs the server, beside a bare ASGI callable that sends the same bytes."""

from __future__ import annotations

from app.embedded.stack import EmbeddedStack
from tests.bench import servers
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.load import load
from tests.bench.servers import Cost, Server

TARGET = "/template-details?id=1"


def _http_hit(effort: Effort) -> dict[str, Run]:
    with EmbeddedStack() as stack, servers.app(stack) as app:
        app.get(TARGET)
        cached = app.get(TARGET)
        if ("x-cache", "l1") not in cached.headers:
            raise BenchError("the second read is no hit in the app's own memory")
        with servers.bare(cached) as bare:
            for server in (app, bare):
                load(server.url, [TARGET], seconds=effort.warm_up_s)
            loads = app.database_loads()
            ours, theirs = _measure(app, effort), _measure(bare, effort)
            if app.database_loads() != loads:
                raise BenchError("not every request was served from the cache")
    return {"http_hit": Run(ours.cpu_us, theirs.cpu_us), "http_hit_rps": Run(ours.rps, theirs.rps)}


def _measure(server: Server, effort: Effort) -> Cost:
    before = server.cpu_s()
    done = load(server.url, [TARGET], seconds=effort.load_s)
    return Cost((server.cpu_s() - before) / done.requests * 1e6, done.requests / done.seconds)


_BASELINE = "a bare ASGI callable that sends the same bytes on the same uvicorn"

HTTP_HIT = Subject(
    [
        Figure("http_hit", "µs", baseline=_BASELINE, ratio_at_most=1.35),
        Figure("http_hit_rps", "req/s", baseline=_BASELINE),
    ],
    _http_hit,
)
"""Processor time of the server a request, by its process' own accounting, and requests a second; in mode `full`."""
