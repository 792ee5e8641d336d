"""Replicas to look at, and a browser to look at their page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from tests.faults.conftest import Serve, serve
from tests.live.browser import CHROMIUM

__all__ = ["Serve", "replica", "serve"]


@pytest.fixture(scope="package")
def replica(
    stack: EmbeddedStack, fresh_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """A real server, which in the end has nobody who looks, and has logged no traceback."""
    log = tmp_path_factory.mktemp("replica") / "log"
    settings = {
        "APP_DATABASE_URL": fresh_database(),
        "APP_REDIS_URL": stack.redis.url(),
        "APP_CACHE_KEY_PREFIX": "live",
        "APP_DRAIN_DELAY_S": "0",
    }
    with Replica(settings, log=log) as started:
        yield started
        assert "http_in_flight_requests 0.0" in httpx.get(f"{started.http_url}/metrics").text
    assert "Traceback" not in log.read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()
