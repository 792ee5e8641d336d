"""The last stampede on the live page, in a real Chromium: its picture, by pointer, by keys and as a table."""

from __future__ import annotations

import re

from playwright.async_api import Browser, expect

from tests.live.browser import IN_CHROMIUM, looking
from tests.live.page_server import PageServer, stampede

pytestmark = IN_CHROMIUM


async def test_a_stampede_is_a_lane_a_caller_and_both_apps_have_one_time_scale(chromium: Browser) -> None:
    server = PageServer()
    async with looking(chromium, server) as page:
        server.send("stampede", stampede())
        server.send("stampede", stampede("app-unprotected", "none"))
        cured, plain = (page.locator(f'.stampede[data-app="{name}"]') for name in ("app", "app-unprotected"))
        for picture in (cured, plain):
            await expect(picture.locator(".lane")).to_have_count(200)
        await expect(cured.locator(".lane .on-load")).to_have_count(1)
        await expect(cured.locator(".lane .on-flight")).to_have_count(199)
        await expect(plain.locator(".lane .on-load")).to_have_count(200)
        look = await cured.locator(".lane .on-l1").last.bounding_box()
        assert look is not None
        assert look["width"] >= 2
        await expect(cured.locator("figcaption")).to_contain_text("1 load for 200 callers")
        await expect(page.locator("#compared")).to_contain_text("200 loads unprotected, 1 protected")
        key = page.locator("#stampede-key li:visible")
        await expect(key).to_have_count(5)
        axes = await page.locator(".axis").all_inner_texts()
        assert axes[0] == axes[1]
        await page.get_by_label("each at its own time scale").check()
        axes = await page.locator(".axis").all_inner_texts()
        assert axes[0] != axes[1]
        await page.locator("h1").click()  # a picture that somebody reads stays
        server.send("stampede", stampede(callers=1000, lanes=230))
        await expect(cured.locator("figcaption")).to_contain_text("1,000 callers, 200 of them shown")
        await expect(cured.locator(".lane")).to_have_count(200)


async def test_a_caller_can_be_read_by_pointer_by_keys_and_in_a_table(chromium: Browser) -> None:
    server = PageServer()
    async with looking(chromium, server) as page:
        server.send("stampede", stampede())
        picture = page.get_by_role("slider")
        await picture.focus()
        await page.keyboard.press("ArrowDown")
        await expect(page.locator(".detail")).to_contain_text("Caller 1 came at 0.05 ms")
        await expect(page.locator(".detail")).to_contain_text("the database load")
        await page.keyboard.press("End")
        await expect(picture).to_have_attribute("aria-valuetext", re.compile("^Caller 200 .*another caller’s flight"))
        await picture.hover(position={"x": 40, "y": 1})
        await expect(picture).to_have_attribute("aria-valuenow", "1")
        await page.get_by_text("As a table").click()
        rows = page.locator(".stampede tr")
        await expect(rows.filter(has_text="another caller’s flight")).to_contain_text("199 callers")
        await expect(rows.filter(has_text="Left: loaded")).to_contain_text("1 caller")


async def test_a_picture_that_somebody_reads_stays_until_he_leaves_it(chromium: Browser) -> None:
    server = PageServer()
    async with looking(chromium, server) as page:
        server.send("stampede", stampede(callers=20))
        await page.get_by_text("As a table").click()
        await page.mouse.move(0, 0)
        await page.get_by_role("slider").focus()
        await page.keyboard.press("End")
        server.send("stampede", stampede(callers=30))
        await expect(page.locator("#held")).to_be_visible()
        await expect(page.locator(".detail")).to_contain_text("Caller 20")
        await page.get_by_role("link", name="API").focus()
        await expect(page.locator(".lane")).to_have_count(30)
        await expect(page.locator("#held")).to_be_hidden()
        await expect(page.locator(".stampede table")).to_be_visible()
        await page.get_by_role("slider").hover()
        server.send("stampede", stampede(callers=40))
        await expect(page.locator("#held")).to_be_visible()
        await page.mouse.move(0, 0)
        await expect(page.locator(".lane")).to_have_count(40)
