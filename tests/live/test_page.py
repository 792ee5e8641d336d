"""The live page in a real Chromium: what it shows against what it was sent, what it asks when it is clicked."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
from playwright.async_api import Browser, expect

from app.embedded.replica import Replica
from tests.live.browser import IN_CHROMIUM, controlled, figure, looking, opened
from tests.live.page_server import ACTIONS, NOW, PageServer, app, sample, stampede

pytestmark = IN_CHROMIUM

EVIL = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
CHARTS = ("loads", "factor", "requests", "latency", "hits", "shared", "flight")


async def test_both_apps_are_in_each_figure_and_each_chart_under_their_names(chromium: Browser) -> None:
    server = PageServer()
    async with looking(chromium, server) as page:
        plain = app("none", requests_s=1234.4, loads_s=187.26, stampede_factor=186.6, p95_ms=1203.0, replicas=3)
        server.send("sample", sample(0, app=app(loads_s=0.25, p50_ms=None), app_unprotected=plain))
        await expect(figure(page, "Requests")).to_have_text(["100/s", "1,234/s"])
        await expect(figure(page, "Database loads")).to_contain_text(["0.25/s", "187/s"])
        await expect(figure(page, "Stampede factor")).to_have_text(["1×", "187×"])
        await expect(figure(page, "Latency")).to_contain_text(["1.1 ms", "1.2 s"])
        await expect(figure(page, "Latency")).to_contain_text(["p50 –", "p50 0.21 ms"])
        await expect(figure(page, "Hits")).to_have_text(["99 %", "99 %"])
        await expect(page.locator(".tile").first).to_contain_text("unprotected none, 3 replicas")
        for chart in CHARTS:
            await expect(page.locator(f"#chart-{chart} .keys .app")).to_have_text(["protected", "unprotected"])
            await expect(page.locator(f"#chart-{chart} canvas")).to_be_visible()
        await expect(page.locator("#chart-loads .keys li").last).to_contain_text("187/s")


async def test_reads_of_a_real_server_are_on_its_page(chromium: Browser, replica: Replica) -> None:
    async with opened(chromium, f"{replica.http_url}/") as page, httpx.AsyncClient() as client:
        await expect(figure(page, "Requests")).to_have_text("0/s")
        await asyncio.gather(*(client.get(f"{replica.http_url}/template-details?id=5") for _ in range(20)))
        await expect(page.locator("#no-load")).to_be_hidden()
        await expect(figure(page, "Stampede factor")).to_have_text("1×")


async def test_a_second_in_which_an_app_was_down_is_a_gap_and_the_figure_says_down(chromium: Browser) -> None:
    server = PageServer()
    server.history["samples"] = [sample(0), sample(1, app=app(up=False)), sample(2)]
    async with looking(chromium, server) as page:
        value = page.locator("#chart-requests .keys b")
        await expect(value).to_have_text("100/s")
        await page.locator("#chart-requests").focus()
        await page.keyboard.press("ArrowLeft")
        await expect(value).to_have_text("–")
        await page.keyboard.press("ArrowLeft")
        await expect(value).to_have_text("100/s")
        server.send("sample", sample(3, app=app(up=False)))
        await expect(figure(page, "Requests")).to_have_text("down")


async def test_before_anything_happens_the_page_says_what_to_do(chromium: Browser) -> None:
    server = PageServer()
    async with looking(chromium, server) as page:
        await expect(page.locator("#waiting")).to_be_visible()
        server.send("sample", sample(0, app=app(requests_s=0.0, p50_ms=None, p95_ms=None, p99_ms=None)))
        await expect(page.locator("#no-load")).to_contain_text("./loadtest.sh")
        await expect(page.locator("#waiting")).to_be_hidden()
        await expect(page.locator("#chart-latency .empty")).to_be_visible()
        await expect(page.locator("#no-stampede")).to_contain_text("./loadtest.sh")
        await expect(page.locator("#no-controls")).to_contain_text("make demo")
        await expect(page.locator("#no-reports")).to_contain_text("python -m app scenario redis-outage")
        assert await page.get_by_role("button").count() == 0
        server.send("sample", sample(1))
        await expect(page.locator("#no-load")).to_be_hidden()


async def test_each_button_asks_for_its_action_and_says_what_came_of_it(chromium: Browser) -> None:
    server = controlled()
    async with looking(chromium, server) as page:
        server.send("sample", sample(0, app=app("fleet")))
        await expect(page.locator("select")).to_have_value("fleet")
        await page.get_by_label("Callers").fill("300")
        await page.get_by_label("Template", exact=True).fill("7")
        await page.get_by_label("Slower by, ms").fill("250")
        await page.locator("select").select_option("mutex")
        wanted: dict[str, Any] = {
            "stampede": {"callers": 300, "id": None},
            "expire": {"id": 7},
            "change": {"id": 7},
            "redis_away": {},
            "redis_back": {},
            "postgres_slow": {"ms": 250},
            "postgres_normal": {},
            "mode": {"mode": "mutex"},
        }
        for action in ACTIONS:
            server.answer = (200, {"done": f"{action} it is"})
            await page.locator(f'[data-action="{action}"]').click()
            await expect(page.locator("#said")).to_have_text(f"{action} it is")
            assert server.asked[-1] == (action, wanted[action])
        for field, action in [("Callers", "stampede"), ("Template", "expire"), ("Slower by, ms", "postgres_slow")]:
            server.answer = (200, {"done": f"{action} by Enter"})
            await page.get_by_label(field, exact=True).press("Enter")
            await expect(page.locator("#said")).to_have_text(f"{action} by Enter")
            assert server.asked[-1] == (action, wanted[action])
        assert len(server.asked) == len(ACTIONS) + 3


async def test_an_action_that_is_refused_says_why_and_bad_input_is_never_sent(chromium: Browser) -> None:
    server = controlled()
    async with looking(chromium, server) as page:
        fire = page.get_by_role("button", name="Fire a stampede")
        for wrong in ("", "4", "1001", "7.5"):
            await page.get_by_label("Callers").fill(wrong)
            await fire.click()
            await expect(page.locator("#said.problem")).to_have_text("Callers: a whole number from 5 to 1000")
        assert server.asked == []
        await page.get_by_label("Callers").fill("5")
        server.answer = (409, {"title": "Conflict", "detail": f"a stampede is under way {EVIL}"})
        await fire.click()
        await expect(page.locator("#said.problem")).to_have_text(f"refused: a stampede is under way {EVIL}")
        server.answer = (422, {"title": "Unprocessable", "detail": [{"loc": "callers"}]})
        await fire.click()
        await expect(page.locator("#said.problem")).to_have_text("refused: Unprocessable")


async def test_a_button_is_off_while_its_action_runs_and_what_is_there_now_is_marked(chromium: Browser) -> None:
    server = controlled()
    async with looking(chromium, server) as page:
        away, there = (page.get_by_role("button", name=name) for name in ("Away", "There"))
        await expect(there).to_have_attribute("aria-pressed", "true")
        server.may_answer.clear()
        await away.click()
        await expect(away).to_be_disabled()
        await expect(there).to_be_disabled()
        await expect(page.get_by_role("button", name="Expire")).to_be_enabled()
        server.may_answer.set()
        await expect(away).to_be_enabled()
        server.send("mark", {"at": NOW, "kind": "redis_away", "what": "Redis taken away"})
        await expect(away).to_have_attribute("aria-pressed", "true")
        await expect(there).to_have_attribute("aria-pressed", "false")


async def test_marks_that_come_together_keep_their_lines_and_their_labels_do_not_overlap(chromium: Browser) -> None:
    server = PageServer()
    server.history["samples"] = [sample(second) for second in range(299)]
    kinds = [*ACTIONS, "something-new"]
    server.history["marks"] = [
        {"at": NOW + 150 + nth, "kind": kind, "what": f"Done: {kind}"} for nth, kind in enumerate(kinds)
    ] + [{"at": NOW + 298, "kind": "mode", "what": "Mode is full"}]
    async with looking(chromium, server) as page:
        for chart in CHARTS:
            await expect(page.locator(f"#chart-{chart} .mark")).to_have_count(len(kinds) + 1)
        boxes = await page.locator("#chart-requests .mark span").evaluate_all(
            "spans => spans.filter(each => !each.hidden).map(each => each.getBoundingClientRect().toJSON())"
        )
        plot = await page.locator("#chart-requests .u-over").bounding_box()
        assert plot is not None
        assert len(boxes) >= 4
        for nth, box in enumerate(boxes):
            assert plot["x"] - 1 <= box["left"] <= box["right"] <= plot["x"] + plot["width"] + 1
            for other in boxes[:nth]:
                apart = box["left"] >= other["right"] or other["left"] >= box["right"]
                assert apart or box["top"] >= other["bottom"] or other["top"] >= box["bottom"]
        labels = await page.locator("#chart-requests .mark span:visible").all_inner_texts()
        assert sum(1 + int((re.search(r"\+(\d+)$", text) or [0, 0])[1]) for text in labels) == len(kinds) + 1
        await page.get_by_text("What was done").click()
        await expect(page.locator("#marks li").first).to_contain_text("Mode is full")
        await expect(page.locator("#marks li")).to_have_count(len(kinds) + 1)


async def test_what_the_server_tells_stays_text_and_links_lead_to_pages_only(chromium: Browser) -> None:
    server = controlled()
    server.hello |= {
        "version": EVIL,
        "reports": [
            {"name": "a", "title": EVIL, "url": "/reports/scenario-redis-outage.html"},
            {"name": "b", "title": "bad", "url": "javascript:document.title='taken'"},
        ],
        "links": [{"title": "Loom", "url": "http://127.0.0.1:9998/"}],
    }
    async with looking(chromium, server) as page:
        server.send("sample", sample(0, **{EVIL: app(EVIL)}))
        server.send("mark", {"at": NOW, "kind": EVIL, "what": EVIL})
        server.send("stampede", {**stampede(callers=5), "app": EVIL, "key": EVIL, "mode": EVIL})
        await expect(page.locator(".stampede")).to_contain_text(EVIL)
        await expect(page.locator("#reports a")).to_have_text(EVIL)
        await expect(page.locator("#reports a")).to_have_attribute("href", re.compile("/reports/scenario-redis"))
        await expect(page.get_by_role("link", name="Loom")).to_have_attribute("href", "http://127.0.0.1:9998/")
        assert await page.locator("body img, body script").count() == 0
        assert await page.title() == "Stampede, live"


async def test_events_that_make_no_sense_are_passed_over(chromium: Browser) -> None:
    server = controlled()
    async with looking(chromium, server) as page:
        for event in ("sample", "mark", "stampede", "history", "hello"):
            for nonsense in ("{", "null", "[]", '{"at": "now", "apps": 7, "lanes": 7, "samples": 7, "marks": [7]}'):
                server.send(event, nonsense)
        server.send("stampede", {"app": "app", "lanes": [{"waits": 7}, {"n": None, "left_ms": "x"}]})
        server.send("sample", sample(0, app={"mode": "full", "up": True, "requests_s": "many", "hits_s": None}))
        await expect(figure(page, "Requests")).to_have_text("–")
        server.send("sample", sample(1))
        await expect(figure(page, "Requests")).to_have_text("100/s")


async def test_a_lost_connection_is_told_and_taken_up_again_with_all_that_was_drawn(chromium: Browser) -> None:
    server = controlled()
    server.history["samples"] = [sample(second) for second in range(10)]
    async with looking(chromium, server) as page:
        await page.get_by_label("Callers").fill("321")
        server.refuses = True
        server.hang_up()
        await expect(page.locator("#connection")).to_have_text(re.compile(r"connection lost at \d\d:\d\d:\d\d"))
        # A server that was started anew has no history, and the app another mode.
        server.history["samples"] = []
        server.refuses = False
        await expect(page.locator("#connection")).to_have_text("live")
        server.send("sample", sample(20, app=app("mutex", requests_s=7.0)))
        value = page.locator("#chart-requests .keys b")
        await expect(value).to_have_text("7/s")
        await expect(page.locator("select")).to_have_value("mutex")
        await expect(page.get_by_label("Callers")).to_have_value("321")
        await page.locator("#chart-requests").focus()
        for shown in ("–", "100/s"):
            await page.keyboard.press("ArrowLeft")
            await expect(value).to_have_text(shown)


async def test_samples_are_kept_once_for_five_minutes_and_lines_break_where_none_came(chromium: Browser) -> None:
    async with looking(chromium, PageServer()) as page:
        kept = await page.evaluate(
            """async () => {
              const { Samples } = await import("/page/js/samples.js");
              const samples = new Samples();
              const alone = (second) => ({ app: { up: true, requests_s: second } });
              const at = (second, apps) => samples.add({ at: second, apps: apps ?? alone(second) });
              const told = {};
              told.first = [at(1), at(2), at(2), at(1)];
              told.gap = (at(10), samples.column("app", "requests_s").slice());
              at(11, { app: { up: false, requests_s: 5 }, other: { up: true, requests_s: 1 } });
              told.down = samples.column("app", "requests_s").at(-1);
              told.other = samples.column("other", "requests_s").slice();
              for (let second = 12; second < 1000; second++) at(second);
              told.length = samples.at.length;
              told.ends = [samples.at[0], samples.at.at(-1), samples.column("app", "requests_s").length];
              told.apps = samples.apps;
              for (let nth = 0; nth < 9; nth++) at(1000 + nth, { [`app${nth}`]: { up: true, requests_s: 1 } });
              told.most = samples.apps.length;
              return told;
            }"""
        )
    assert kept["first"] == [True, True, False, False]
    assert kept["gap"] == [1, 2, None, 10]
    assert kept["down"] is None
    assert kept["other"] == [None, None, None, None, 1]
    assert kept["length"] == 300
    assert kept["ends"] == [700, 999, 300]
    assert kept["apps"] == ["app"]
    assert kept["most"] == 4


async def test_a_server_whose_clock_was_set_back_is_shown_on(chromium: Browser) -> None:
    server = PageServer()
    async with looking(chromium, server) as page:
        server.send("sample", sample(3600))
        await expect(figure(page, "Requests")).to_have_text("100/s")
        server.send("sample", sample(0, app=app(requests_s=5.0)))
        await expect(figure(page, "Requests")).to_have_text("5/s")


async def test_the_page_is_dark_where_the_system_is_and_the_charts_change_with_it(chromium: Browser) -> None:
    server = PageServer()
    server.history["samples"] = [sample(second) for second in range(60)]
    async with looking(chromium, server, color_scheme="dark", reduced_motion="reduce") as page:
        canvas = page.locator("#chart-requests canvas")
        await expect(canvas).to_be_visible()

        async def picture() -> str:
            return str(await canvas.evaluate("canvas => canvas.toDataURL()"))

        ground = "getComputedStyle(document.body).backgroundColor"
        await page.wait_for_function(f"{ground} === 'rgb(15, 19, 24)'")
        dark = await picture()
        await page.emulate_media(color_scheme="light")
        await page.wait_for_function(f"{ground} === 'rgb(255, 255, 255)'")
        await page.wait_for_function(
            "before => document.querySelector('#chart-requests canvas').toDataURL() !== before", arg=dark
        )


async def test_nothing_is_cut_off_at_any_width(chromium: Browser) -> None:
    server = controlled()
    server.history["samples"] = [sample(0, app=app(), app_unprotected=app("none"))]
    async with looking(chromium, server) as page:
        server.send("stampede", stampede())
        server.send("stampede", stampede("app-unprotected", "none"))
        await expect(page.locator(".stampede")).to_have_count(2)
        for width in (1600, 800, 390):
            await page.set_viewport_size({"width": width, "height": 800})
            await page.wait_for_function(
                "() => { const plot = document.querySelector('#chart-flight .plot');"
                " return plot.clientWidth > 0 && plot.querySelector('canvas').clientWidth === plot.clientWidth; }"
            )
            assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_ten_minutes_of_samples_leave_the_heap_as_it_was(chromium: Browser) -> None:
    server = controlled()
    async with looking(chromium, server) as page:
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        sent = 0

        async def run(seconds: int) -> dict[str, float]:
            nonlocal sent
            for _ in range(seconds // 10):
                for _ in range(10):
                    sent += 1
                    both = sample(sent, app=app(requests_s=float(sent)), app_unprotected=app("none"))
                    server.send("sample", both)
                server.send("mark", {"at": NOW + sent, "kind": "expire", "what": f"Template {sent} expired"})
                if sent % 100 == 0:
                    server.send("stampede", stampede())
                await page.wait_for_function(
                    "shown => document.querySelector('#chart-requests .keys b').textContent === shown",
                    arg=await page.evaluate("async n => (await import('/page/js/numbers.js')).aSecond(n)", sent),
                )
            for _ in range(3):
                await session.send("HeapProfiler.collectGarbage")
            told = await session.send("Performance.getMetrics")
            return {each["name"]: each["value"] for each in told["metrics"]}

        before = await run(350)
        after = await run(400)
        assert after["Nodes"] < before["Nodes"] * 1.1
        assert after["JSEventListeners"] < before["JSEventListeners"] + 10
        assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] + 300_000


async def test_a_server_that_falls_silent_is_asked_anew(chromium: Browser) -> None:
    server = PageServer()
    async with looking(chromium, server) as page:
        await page.clock.install()
        server.send("sample", sample(0))
        await expect(figure(page, "Requests")).to_have_text("100/s")
        async with page.expect_request("**/events"):
            await page.clock.run_for(11_000)
        await expect(page.locator("#connection")).to_have_text("live")
