"""Loom's inspector with 10,000 calls, in a Chromium: how soon there is something to see, and how fast it filters."""

from __future__ import annotations

import uvloop
from playwright.async_api import Browser, Error, async_playwright

from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.loom.recording.calls import unary
from tests.loom.test_inspector import Watched, watching
from tests.loom.test_page import CHROMIUM

NO_CHROMIUM = "no Chromium is installed (Debian: apt install chromium)"
CALLS = 10_000
LOADED_MS = 30_000
FILTER = """() => new Promise((done) => {
    const filter = document.getElementById("filter");
    const begun = performance.now();
    filter.value = "method:Get77*";
    filter.dispatchEvent(new Event("input"));
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
})"""
"""Until the frame with the result has been handed to the compositor."""


def _inspector(_: Effort) -> dict[str, Run]:
    if CHROMIUM is None:
        raise BenchError(NO_CHROMIUM)
    try:
        return uvloop.run(_measure())
    except Error as error:
        raise BenchError(f"the page failed: {error.message}") from error


async def _measure() -> dict[str, Run]:
    async with watching() as full, watching() as empty, async_playwright() as playwright:
        capture = full.loom.capture
        capture.ring._max_records = CALLS
        for call in range(CALLS):
            for event in unary(1_000_000 + call, method=f"/test.Interop/Get{call}"):
                capture.recorder(event)
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            painted, filtered, found = await _seen(browser, full, CALLS)
            nothing, at_once, _ = await _seen(browser, empty, 0)
        finally:
            await browser.close()
    return {
        "inspector_first_paint_ms": Run(painted, nothing),
        "inspector_filter_ms": Run(filtered, at_once, sound=found.startswith("111 of 10000 calls")),
    }


async def _seen(browser: Browser, watched: Watched, calls: int) -> tuple[float, float, str]:
    page = await browser.new_page()
    await page.goto(f"http://127.0.0.1:{watched.loom.ui.port}/")
    told = page.locator("#told")
    await told.filter(has_text=f"{calls} of {calls} calls").wait_for(timeout=LOADED_MS)
    painted = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    filtered = await page.evaluate(FILTER)
    found = await told.inner_text()
    await page.close()
    return painted, filtered, found


INSPECTOR = Subject(
    [
        Figure(
            "inspector_first_paint_ms", "ms", baseline="the same page of a Loom that has seen no call", at_most=1_000
        ),
        Figure(
            "inspector_filter_ms",
            "ms",
            baseline="the same page of a Loom that has seen no call",
            at_most=100,
            and_also="111 of 10,000 found",
        ),
    ],
    _inspector,
    "" if CHROMIUM else NO_CHROMIUM,
)
"""10,000 calls are recorded before the page is opened."""
