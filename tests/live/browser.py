"""The live page in a real Chromium, as tests open it."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, expect

from tests.live.page_server import CONTROLS, PageServer, serving

NAMES: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CHROMIUM: Final = next(filter(None, map(shutil.which, NAMES)), None)
IN_CHROMIUM: Final = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"),
    pytest.mark.asyncio(loop_scope="module"),
]
"""The marks of a module whose tests look at it."""
WAIT_MS: Final = 30_000


@asynccontextmanager
async def looking(browser: Browser, server: PageServer, **options: Any) -> AsyncIterator[Page]:
    async with serving(server), opened(browser, server.url, **options) as page:
        yield page


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    """The page, which must not have raised, been refused anything, or asked another server when it is left."""
    complaints: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "data:")):
            complaints.append(f"asked {request.url}")

    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
    page.on("request", asked)
    await page.goto(url)
    await expect(page.locator("#connection")).to_have_text("live")
    try:
        yield page
    finally:
        await context.close()
    assert complaints == []


def is_complaint(said: ConsoleMessage) -> bool:
    """Chromium tells of every answer that is an error, those that the page shows too."""
    return said.type == "error" and not re.search(r"status of (409|422|503)|net::ERR_", said.text)


def figure(page: Page, title: str) -> Locator:
    return page.locator(".tile").filter(has=page.get_by_role("heading", name=title)).locator("dd")


def controlled() -> PageServer:
    server = PageServer()
    server.hello["controls"] = CONTROLS
    return server
