"""What a live page that somebody looks at costs each request, beside the same server with nobody looking."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from urllib.parse import urlsplit

from app.embedded.stack import EmbeddedStack
from tests.bench import servers
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.load import load
from tests.bench.servers import Server

TARGET = "/template-details?id=1"
TURNS = 5


def _live_page_cpu(effort: Effort) -> dict[str, Run]:
    with EmbeddedStack() as stack, servers.app(stack) as app:
        app.get(TARGET)
        load(app.url, [TARGET], seconds=effort.warm_up_s)
        unseen, seen = [], []
        for _ in range(TURNS):  # so that a drift of the machine falls on both
            unseen.append(_cpu_us(app, effort))
            with _looking(app):
                seen.append(_cpu_us(app, effort))
    return {"live_page_cpu": Run(median(seen), median(unseen))}


def _cpu_us(server: Server, effort: Effort) -> float:
    before = server.cpu_s()
    done = load(server.url, [TARGET], seconds=effort.load_s)
    return (server.cpu_s() - before) / done.requests * 1e6


@contextmanager
def _looking(server: Server) -> Iterator[None]:
    """A page's stream of events, read as a browser reads it."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("GET", "/events")
    response = connection.getresponse()
    begun = threading.Event()

    def read() -> None:
        try:
            while response.readline():
                begun.set()
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass  # closed, at the end

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        begun.wait(10)
        yield
    finally:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
        reader.join(10)
        connection.close()
    if response.status != 200 or not begun.is_set():
        raise BenchError("the page's events did not come")


LIVE_PAGE = Subject(
    [Figure("live_page_cpu", "µs", baseline="the same server with nobody looking", ratio_at_most=1.03)],
    _live_page_cpu,
)
"""Processor time of the server a cached GET, while one page is open; in mode `full`."""
