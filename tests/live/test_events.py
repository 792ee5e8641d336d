"""The stream of a real server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable

import httpx
import pytest

from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from tests.faults.polling import until
from tests.live.conftest import Serve
from tests.live.events import PATIENCE_S, listening


async def metric(url: str, name: str) -> float:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        found = re.search(rf"^{name} (\S+)$", (await client.get(f"{url}/metrics")).text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


async def test_reads_are_seen_in_the_next_samples(replica: Replica) -> None:
    async with listening(f"{replica.http_url}/events") as events, httpx.AsyncClient() as client:
        hello = await events.next("hello")
        assert (hello["app"], hello["interval_s"], hello["controls"]) == ("full", 1, None)
        await events.next("history")
        await events.next("sample")
        for template_id in (1, 1, 1, 2, 2):
            assert (await client.get(f"{replica.http_url}/template-details?id={template_id}")).status_code == 200
        seen = (await events.next("sample"))["apps"]["app"]
        while not seen["requests_s"] or seen["in_flight"]:  # a sample may come amid the reads
            seen = (await events.next("sample"))["apps"]["app"]
        assert (seen["mode"], seen["up"], seen["in_flight"]) == ("full", True, 0)
        assert seen["p50_ms"] <= seen["p99_ms"]


async def test_when_the_last_one_leaves_no_stream_is_counted_and_no_request_is_in_flight(replica: Replica) -> None:
    async with listening(f"{replica.http_url}/events") as events:
        await events.next("hello")
        assert await metric(replica.http_url, "live_subscribers") == 1
        assert await metric(replica.http_url, "http_in_flight_requests") == 0
    for _ in range(200):
        if not await metric(replica.http_url, "live_subscribers"):
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the stream is still counted")


async def test_a_server_that_ends_ends_the_streams_first_and_need_not_wait_for_them(
    stack: EmbeddedStack, fresh_database: Callable[[], str], serve: Serve
) -> None:
    replica = serve(fresh_database(), stack.redis.url(), cache_key_prefix="live_ends", drain_timeout_s=60)
    async with listening(f"{replica.http_url}/events") as events:
        await events.next("sample")
        os.kill(replica.pid, signal.SIGTERM)
        await events.ended()
    await until(lambda: not replica.is_running, "it ends", PATIENCE_S)
    assert replica.stop() == 0


async def test_only_get_is_taken_and_what_is_wrong_is_told_as_problem_json(replica: Replica) -> None:
    async with httpx.AsyncClient(base_url=replica.http_url) as client:
        for path, allowed in {"/": "GET, HEAD", "/events": "GET", "/page/index.html": "GET, HEAD"}.items():
            refused = await client.post(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
            assert refused.headers["content-type"] == "application/problem+json"


async def test_the_page_comes_with_a_policy_that_lets_it_load_nothing_from_elsewhere(replica: Replica) -> None:
    async with httpx.AsyncClient(base_url=replica.http_url) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-cache"
        head = await client.head("/")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == page.headers["content-length"]
        again = await client.get("/", headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["../live.py", "%2e%2e/live.py", "..%2flive.py", "%00", "", "/etc/passwd", "nope.js"])
async def test_nothing_but_the_pages_own_files_is_served(replica: Replica, path: str) -> None:
    def ask() -> bytes:
        """httpx would tidy the path up."""
        place = httpx.URL(replica.http_url)
        with socket.create_connection((place.host, place.port or 80), PATIENCE_S) as connection:
            connection.sendall(f"GET /page/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer

    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.1 404 ")
