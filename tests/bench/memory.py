"""The app's resident memory: at rest, and after 100,000 requests."""

from __future__ import annotations

import time

from app.embedded.stack import EmbeddedStack
from tests.bench import servers
from tests.bench.figure import Effort, Figure, Run, Subject
from tests.bench.load import load

IDS = 1_000
REST_S = 1.0


def _memory(effort: Effort) -> dict[str, Run]:
    targets = [f"/template-details?id={number}" for number in range(1, IDS + 1)]
    anything = servers.Answer([("content-length", "2")], b"{}")
    with EmbeddedStack() as stack, servers.app(stack) as app, servers.bare(anything) as bare:
        time.sleep(REST_S)
        idle_mb, bare_mb = app.rss_mb(), bare.rss_mb()
        load(app.url, targets, requests=effort.requests)
        time.sleep(REST_S)
        return {"rss_mb_idle": Run(idle_mb, bare_mb), "rss_mb_after_100k": Run(app.rss_mb(), idle_mb)}


MEMORY = Subject(
    [
        Figure("rss_mb_idle", "MB", baseline="a bare ASGI server, idle"),
        Figure("rss_mb_after_100k", "MB", baseline="the same process, idle"),
    ],
    _memory,
)
"""The requests go over all seeded templates in turn."""
