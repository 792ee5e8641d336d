"""`python -m tests.screenshots`: the demo's pages as PNGs in out/screenshots/."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.async_api import Browser, Page, async_playwright, expect

from app.loadtest.target import running_stack
from tests.loom.test_page import CHROMIUM

OUT: Final = Path("out/screenshots")
DEMO_S: Final = 300.0
"""How long the demo may take until its apps stay up."""
WIDE: Final = {"width": 1440, "height": 1010}
NARROW: Final = {"width": 390, "height": 844}
ENDS_S: Final = 60.0
SLOW_MS: Final = 250
"""Added to each load, so that the last stampede's callers have all come before it is over, on a busy machine too."""
ACTIONS: Final = (
    ("stampede", 8),
    ("redis_away", 6),
    ("expire", 4),
    ("redis_back", 8),
    ("postgres_slow", 4),
    ("stampede", 4),
)
"""What is clicked, and for how many seconds it is watched."""
MAX_REPORT_PX: Final = 2_400


def main() -> int:
    """The exit status: 0 where every picture was taken."""
    if CHROMIUM is None:
        print("screenshots: no Chromium is installed (Debian: apt install chromium)", file=sys.stderr)
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    with demo() as said:
        asyncio.run(pictures(said, sorted(Path("out").glob("*.html"))))
    for file in sorted(OUT.glob("*.png")):
        print(file)
    return 0


@contextmanager
def demo() -> Iterator[dict[str, Any]]:
    """The demo, once its apps stay up; gives what it says of them."""
    process = subprocess.Popen([sys.executable, "-m", "app", "demo"], stdout=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + DEMO_S
        while (said := running_stack()) is None or said["pid"] != process.pid:
            if process.poll() is not None or time.monotonic() > ends:
                raise SystemExit("screenshots: the demo did not stay up; run `make demo` to see why")
            time.sleep(0.5)
        yield dict(said)
    finally:
        process.terminate()  # which it takes as Ctrl-C; that one is ignored by what runs in the background
        try:
            process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def pictures(said: dict[str, Any], reports: list[Path]) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        async with traffic([said["http_url"], said.get("unprotected_http_url")]):
            await live_page(browser, str(said["http_url"]))
        await loom(browser, str(said["loom_url"]))
        for report in reports:
            page = await browser.new_page(viewport={"width": 1100, "height": 900})
            await page.goto(report.absolute().as_uri())
            tall = int(await page.evaluate("document.documentElement.scrollHeight"))
            clip = {"x": 0, "y": 0, "width": 1100, "height": min(tall, MAX_REPORT_PX)}
            await page.screenshot(path=OUT / f"report-{report.stem}.png", full_page=True, clip=clip)  # type: ignore[arg-type]
            await page.close()
        await browser.close()


async def live_page(browser: Browser, url: str) -> None:
    """Some seconds of what its buttons do, light and dark, wide and narrow."""
    page = await browser.new_page(viewport=WIDE, device_scale_factor=2)  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    await page.goto(url)
    await expect(page.locator("#connection")).to_have_text("live", timeout=60_000)
    await page.wait_for_timeout(8_000)
    await page.get_by_label("Slower by, ms").fill(str(SLOW_MS))
    for action, pause_s in ACTIONS:
        await act(page, action)
        await page.wait_for_timeout(pause_s * 1_000)
    await expect(page.locator(".stampede").first).to_be_visible(timeout=60_000)
    await page.screenshot(path=OUT / "live-light.png")
    await page.screenshot(path=OUT / "live-light-whole.png", full_page=True)
    await page.emulate_media(color_scheme="dark")
    await page.wait_for_timeout(1_500)
    await page.screenshot(path=OUT / "live-dark.png")
    await page.screenshot(path=OUT / "live-dark-whole.png", full_page=True)
    await page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    await page.wait_for_timeout(1_500)
    await page.screenshot(path=OUT / "live-narrow.png", full_page=True)
    await page.close()


async def act(page: Page, action: str) -> None:
    button = page.locator(f'[data-action="{action}"]')
    await button.click()
    await expect(button).to_be_enabled(timeout=60_000)
    await expect(page.locator("#said")).not_to_have_class("problem")


async def loom(browser: Browser, url: str) -> None:
    """The calls that the demo made through Loom, one of them opened."""
    for scheme in ("light", "dark"):
        context = await browser.new_context(viewport=WIDE, color_scheme=scheme, device_scale_factor=2)  # type: ignore[arg-type]
        page = await context.new_page()
        page.set_default_timeout(60_000)
        await page.goto(url)
        await page.locator("#viewport .row").first.click()
        await expect(page.locator("#detail pre").first).to_be_visible(timeout=60_000)
        await page.screenshot(path=OUT / f"loom-{scheme}.png")
        await context.close()


@asynccontextmanager
async def traffic(urls: list[str | None]) -> AsyncIterator[None]:
    """A few dozen reads a second on each app, so that there is something to see."""
    async with httpx.AsyncClient(timeout=10) as client:
        readers = [asyncio.create_task(reads(client, url)) for url in urls if url]
        try:
            yield
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def reads(client: httpx.AsyncClient, url: str) -> None:
    while True:
        ids = [random.randint(1, 30) for _ in range(8)]
        asked = (client.get(f"{url}/template-details", params={"id": id_}) for id_ in ids)
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(random.uniform(0.1, 0.3))


if __name__ == "__main__":
    sys.exit(main())
