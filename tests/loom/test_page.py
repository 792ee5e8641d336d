"""The inspector's page in a real Chromium: what it shows against what was sent."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright, expect

from tests.loom.account import WAIT_S, eventually
from tests.loom.recording.calls import unary
from tests.loom.test_inspector import HELLO, Watched, watching

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)")

expect.set_options(timeout=3_000 * WAIT_S)  # on a busy machine a page takes its time
UNKNOWN_CALL = "/api/calls/%25zz"
EVIL = "<img src=x onerror=\"document.title='taken'\">"


@asynccontextmanager
async def looking(watched: Watched, path: str = "/") -> AsyncIterator[Page]:
    """The page, which must not have raised or been refused anything when it is left."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(viewport={"width": 1280, "height": 720})
        page = await context.new_page()
        page.set_default_timeout(3_000 * WAIT_S)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
        await page.goto(f"http://127.0.0.1:{watched.loom.ui.port}{path}")
        await expect(page.locator("#connection")).to_have_text("live")
        try:
            yield page
        finally:
            await browser.close()
    assert complaints == []


def is_complaint(said: ConsoleMessage) -> bool:
    """Chromium tells of every answer that is an error, those that the page shows too."""
    if said.location["url"].endswith(UNKNOWN_CALL):
        return False
    return said.type == "error" and "409" not in said.text and "ERR_FAILED" not in said.text


async def shows(page: Page, rows: int) -> None:
    await expect(page.locator("#viewport .row")).to_have_count(rows)


async def test_calls_appear_decoded_as_text_and_nothing_of_them_becomes_html() -> None:
    evil = b"\n" + bytes([len(EVIL)]) + EVIL.encode()
    async with watching() as watched, looking(watched) as page:
        await watched.unary(evil, metadata=(("x-evil", EVIL), ("authorization", "s3cret")))
        await page.locator("#viewport .row").click()
        await expect(page.locator("#detail pre").first).to_contain_text("<img src=x")
        for name, text in [
            ("Metadata", "x-evil"),
            ("Status and trailers", "OK (0)"),
            ("Timing", "response 0"),
            ("Raw", "<img src=x"[:9]),
        ]:
            await page.get_by_role("tab", name=name).click()
            await expect(page.locator("#panel")).to_contain_text(text)
            assert "s3cret" not in await page.locator("body").inner_text()
        assert await page.locator("#detail img").count() == 0
        assert await page.title() == "Loom"


async def test_a_call_is_in_flight_until_it_ends_and_a_herd_is_flagged() -> None:
    async with watching() as watched, looking(watched) as page:
        held = watched.channel.unary_unary("/test.Interop/Held")
        calls = [asyncio.ensure_future(held(b"same")) for _ in range(3)]
        await expect(page.locator("#viewport .live")).to_have_count(3)
        await expect(page.locator("#viewport .herd").last).to_have_text("×3")

        async def all_there() -> bool:
            return len(watched.backend.seen) == 3

        await eventually(all_there)
        watched.backend.go_on.set()
        await asyncio.gather(*calls)
        await expect(page.locator("#viewport .ok")).to_have_count(3)


async def test_the_filter_speaks_of_method_status_metadata_and_body() -> None:
    async with watching() as watched:
        await watched.unary(HELLO, metadata=(("x-tenant", "blue"),))
        await watched.unary(b"\n\x05other")
        with pytest.raises(grpc.aio.AioRpcError):
            await watched.unary(b"\n\x04more", metadata=(("x-status", "5"),))
        async with looking(watched) as page:
            for text, count in [
                ("", 3),
                ("status:!OK", 1),
                ("status:OK method:Un*", 2),
                ("method:Get*", 0),
                ("body:WELCOME", 1),
                ("body:!welcome status:OK", 1),
                ("metadata:x-tenant", 1),
                ("not_found", 1),
                ("ms:<60000", 3),
                ("is:duplicate", 0),
            ]:
                await page.locator("#filter").fill(text)
                await shows(page, count)
            await page.locator("#filter").fill("colour:red")
            await expect(page.locator("#told")).to_contain_text("there is no “colour:”")


async def test_messages_are_searched_of_calls_that_are_listed_no_more_and_the_page_says_how_far() -> None:
    async with watching() as watched, looking(watched) as page:
        await watched.unary(b"\n\x05first")
        await shows(page, 1)
        watched.loom.capture.ring._max_records = 2
        for _ in range(3):
            await watched.unary()
        await shows(page, 4)
        await page.locator("#filter").fill("body:first")
        await shows(page, 1)
        await expect(page.locator("#told")).to_have_text("1 of 4 calls")
        watched.loom.capture.ring._forget_oldest()
        await page.locator("#filter").fill("body:!welcome")
        await expect(page.locator("#told")).to_contain_text(
            "0 of 4 calls; messages and metadata were looked through of the"
        )
        await expect(page.locator("#told")).to_contain_text("newest 3: Loom holds no more")
        await page.locator("#filter").fill("body:welcome")
        await shows(page, 3)
        await watched.unary()
        await shows(page, 4)


async def test_keys_links_pause_and_clear() -> None:
    async with watching() as watched:
        for number in range(3):
            await watched.unary(b"\n\x01" + str(number).encode())
        ids = [record.id for record in reversed(watched.loom.capture.ring.newest_first())]
        async with looking(watched, f"/#/call/{ids[1]}") as page:
            chosen = page.locator('#viewport .row[aria-selected="true"]')
            await expect(chosen).to_have_attribute("data-id", ids[1])
            await expect(page.locator("#detail pre").first).to_contain_text('"1"')
            await page.keyboard.press("j")
            await expect(chosen).to_have_attribute("data-id", ids[2])
            await page.keyboard.press("k")
            await page.keyboard.press("k")
            await expect(chosen).to_have_attribute("data-id", ids[0])
            await expect(page.locator("#detail pre").first).to_contain_text('"0"')
            await page.keyboard.press("Escape")
            await expect(page.locator("#detail")).to_be_hidden()
            await page.keyboard.press("/")
            await expect(page.locator("#filter")).to_be_focused()
            await page.keyboard.press("Escape")
            await page.keyboard.press("p")
            await watched.unary()
            await expect(page.locator("#told")).to_contain_text("paused, 1 wait")
            await shows(page, 3)
            await page.keyboard.press("p")
            await shows(page, 4)
            await expect(page.locator("#viewport .ok")).to_have_count(4)  # those under way would stay
            await page.locator("#clear").click()
            await shows(page, 0)
            await page.keyboard.press("?")
            await expect(page.locator("#help")).to_be_visible()


async def test_a_call_is_copied_as_a_command_its_tabs_and_width_follow_the_keys_and_the_theme_stays() -> None:
    async with watching() as watched:
        await watched.unary()
        record = watched.loom.capture.ring.newest_first()[0]
        async with looking(watched, f"/#/call/{record.id}") as page:
            await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            await expect(page.locator("#detail pre").first).to_be_visible()
            await page.keyboard.press("c")
            await expect(page.locator("#said")).to_have_text("copied as a grpcurl command")
            copied = await page.evaluate("navigator.clipboard.readText()")
            assert copied == (await watched.one())["grpcurl"]
            await page.get_by_role("tab", name="Messages").focus()
            await page.keyboard.press("ArrowLeft")
            await expect(page.get_by_role("tab", name="Replay")).to_be_focused()
            field = page.get_by_label("Metadata to send instead")
            await field.fill("x-more: yes")
            await page.keyboard.press("Escape")
            await expect(field).to_have_value("x-more: yes")
            width = await page.locator("#detail").evaluate("element => element.offsetWidth")
            await page.get_by_role("separator").focus()
            await page.keyboard.press("ArrowLeft")
            assert await page.locator("#detail").evaluate("element => element.offsetWidth") == width + 40
            async with page.expect_download() as download:
                await page.get_by_role("link", name="Export").click()
            exported = (await (await download.value).path()).read_text("utf-8")
            assert json.loads(exported)["id"] == record.id
            await page.get_by_role("button", name="Dark").click()
            await page.reload()
            await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_ten_thousand_calls_are_a_few_elements_and_following_stops_on_scrolling() -> None:
    async with watching() as watched:
        ring = watched.loom.capture.ring
        ring._max_records = 10_000
        for call in range(9_999):
            for event in unary(1_000_000 + call, method=f"/test.Interop/Get{call}"):
                watched.loom.capture.recorder(event)
        async with looking(watched) as page:
            await expect(page.locator("#told")).to_contain_text("9999 of 9999 calls")
            assert await page.locator("#viewport .row").count() < 100
            await expect(page.locator("#viewport .row").last).to_contain_text("Get9998")
            await page.locator("#filter").fill("method:Get77*")
            await expect(page.locator("#told")).to_contain_text("111 of 9999 calls")
            await page.locator("#filter").fill("")
            await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "true")
            await page.locator("#viewport").hover()
            await page.mouse.wheel(0, -2_000)
            await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
            at = await page.locator("#viewport").evaluate("element => element.scrollTop")
            await watched.unary()
            await expect(page.locator("#told")).to_contain_text("10000 of 10000 calls")
            assert await page.locator("#viewport").evaluate("element => element.scrollTop") == at


async def test_methods_and_state_have_pages_and_columns_sort() -> None:
    async with watching() as watched:
        await watched.unary()
        with pytest.raises(grpc.aio.AioRpcError):
            await watched.unary(metadata=(("x-status", "5"),))
        async with looking(watched) as page:
            await page.get_by_role("button", name="Status", exact=True).click()
            await expect(page.locator("#viewport .row").last).to_contain_text("OK")
            await expect(page.get_by_role("columnheader", name="Status")).to_have_attribute("aria-sort", "ascending")
            await page.get_by_role("link", name="Methods").click()
            await expect(page.locator("#methods")).to_contain_text("50.0 %")
            await page.get_by_role("link", name="State").click()
            await expect(page.locator("#state")).to_contain_text("5 failures in a row would open it for 30 s")
            await expect(page.locator("#state")).to_contain_text(str(watched.loom.listen))
            await page.get_by_role("link", name="Rules").click()
            await page.get_by_role("button", name="Read the rules again").click()
            await expect(page.locator("#rules .problem")).to_contain_text("--mutate")
            await page.get_by_role("link", name="Methods").click()
            link = page.get_by_role("link", name="/test.Interop/Unary")
            shown = await link.element_handle()
            for _ in range(2):  # the first may be one that was asked for before
                async with page.expect_response("**/api/methods"):
                    pass
            assert await shown.evaluate("element => element.isConnected"), "a click on it may have begun"
            await watched.unary()
            await expect(page.locator("#methods")).to_contain_text("33.3 %")
            await link.click()
            await expect(page.locator("#filter")).to_have_value("method:/test.Interop/Unary")
            await shows(page, 3)


async def test_a_page_stays_while_loom_does_not_answer_and_goes_on_when_it_does() -> None:
    async with watching() as watched, looking(watched, "/#/rules") as page:
        await expect(page.locator("#rules")).to_contain_text("None: no file was given")
        await page.route("**/api/state", lambda route: route.abort())
        async with page.expect_event("requestfailed"):
            pass
        await expect(page.get_by_role("button", name="Read the rules again")).to_be_visible()
        await page.evaluate("document.querySelector('#rules').replaceChildren()")
        await expect(page.locator("#rules")).to_have_text("Loom does not answer")
        await page.unroute("**/api/state")
        await expect(page.locator("#rules")).to_contain_text("None: no file was given")


async def test_an_empty_page_says_where_to_call_and_what_is_chosen_is_read_out_and_nothing_else() -> None:
    async with watching() as watched, looking(watched, "/#/filter/status%3A!OK") as page:
        await expect(page.locator("#none")).to_have_text(f"No calls yet: point a gRPC client at {watched.loom.listen}.")
        await watched.unary()
        await expect(page.locator("#none")).to_have_text("No call is as the filter says.")
        with pytest.raises(grpc.aio.AioRpcError):
            await watched.unary(metadata=(("x-status", "5"),))
        await expect(page.locator("#viewport .failed")).to_have_count(1)
        await shows(page, 1)
        await expect(page.locator("#none")).to_be_hidden()
        said = page.get_by_role("status").and_(page.locator("#said"))
        await expect(said).to_have_text("")
        await page.locator("#viewport").focus()
        await page.keyboard.press("ArrowDown")
        await expect(said).to_contain_text("/test.Interop/Unary NOT_FOUND, ")
        await expect(said).to_contain_text(", 1 of 1")


async def test_the_page_of_rules_says_what_each_does(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(
        json.dumps([
            {"method": "/a.S/*", "direction": "request", "set": {"user.name": "Ada"}, "delete": ["user.token"],
             "headers": {"set": {"x-tenant": "7"}, "add": {"x-tag": "a"}, "delete": ["x-old"]}},
            {"method": "*", "delay": 250, "share": 0.1, "abort": {"status": "UNAVAILABLE", "message": "sold out"}},
        ])
    )  # fmt: skip
    async with watching(rules=rules) as watched, looking(watched, "/#/rules") as page:
        first, second = page.locator("#rules tbody tr").all_inner_texts, page.locator("#rules tbody tr").nth(1)
        await expect(second).to_contain_text("wait 250 ms")
        await expect(second).to_contain_text("answer UNAVAILABLE sold out")
        await expect(second).to_contain_text("10 %")
        for text in (
            'set user.name = "Ada"', "delete user.token", "set metadata x-tenant: 7", "add metadata x-tag: a",
            "delete metadata x-old", "request",
        ):  # fmt: skip
            assert text in (await first())[0]


async def test_a_call_is_edited_and_made_again_beside_its_original() -> None:
    async with watching() as watched:
        await watched.unary(metadata=(("authorization", "Bearer s3cret"),))
        async with looking(watched) as page:
            await page.locator("#viewport .row").click()
            await expect(page.locator("#detail pre").first).to_be_visible()
            await page.keyboard.press("r")
            await page.get_by_label("Requests, a list of JSON").fill('[{"text": "else"}]')
            await page.get_by_label("authorization").fill("Bearer other")
            await page.get_by_label("Metadata to send instead").fill("x-more: yes")
            await page.get_by_role("button", name="Replay", exact=True).click()
            await expect(page.locator("#panel")).to_contain_text("the same status, another body")
            await expect(page.locator("#panel table").last).to_contain_text("response[0].text")
            metadata = dict(watched.backend.seen[-1].metadata)
            assert (metadata["authorization"], metadata["x-more"]) == ("Bearer other", "yes")


async def test_a_link_that_was_written_by_hand_leads_to_the_calls_whatever_it_says() -> None:
    async with watching() as watched, looking(watched, "/#/filter/50%") as page:
        await expect(page.locator("#filter")).to_have_value("50%")
        for link in ("#/constructor", "#/call/%zz"):
            await page.evaluate("link => { location.hash = link; }", link)
            await expect(page.locator("#calls")).to_be_visible()
