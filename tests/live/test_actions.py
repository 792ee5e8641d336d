"""The actions of the page: who may ask, what is refused, and what they do to real servers."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from app.embedded.replica import Replica
from app.live.actions import ACTIONS, ActionError, Nothing
from app.live.controller import Controller
from app.live.recorder import LEAST_CALLERS
from app.live.stage import Done, Stage, _outcome
from app.settings import Mode
from app.telemetry.live_page import ACTIONS as COUNTED
from tests.faults.conftest import Run, run
from tests.faults.polling import until
from tests.faults.test_up import ready, up
from tests.live.events import PATIENCE_S, Events, listening

__all__ = ["run"]

BODIES: dict[str, dict[str, Any]] = {
    "stampede": {"callers": 10},
    "expire": {"id": 1},
    "change": {"id": 1},
    "redis_away": {},
    "redis_back": {},
    "postgres_slow": {"ms": 5},
    "postgres_normal": {},
    "mode": {"mode": "none"},
}


async def test_nothing_can_be_done_where_no_setting_allows_it(replica: Replica) -> None:
    assert list(BODIES) == list(ACTIONS) == list(COUNTED)
    async with httpx.AsyncClient(base_url=replica.http_url) as client:
        for name, body in BODIES.items():
            refused = await client.post(f"/actions/{name}", json=body)
            assert refused.status_code == 403, name
            assert refused.headers["content-type"] == "application/problem+json"
            assert "make demo" in refused.json()["detail"]
            assert (await client.get(f"/actions/{name}")).status_code == 405
            here = await client.post(f"/actions/{name}/here", json=body, headers={"authorization": "Bearer x"})
            assert here.status_code == 404, "what nobody has a token for does not exist"
        assert (await client.post("/actions/nope", json={})).status_code == 404


class FakeStage(Stage):
    """Does nothing until it is let."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self.begun, self.let, self.after = threading.Event(), threading.Event(), threading.Event()

    def state(self) -> dict[str, Any]:
        return {"state": {}}

    def do(self, name: str, arguments: object) -> Done:
        self.begun.set()
        assert self.let.wait(PATIENCE_S)
        return Done("it was done", "Done", self.after.set)


def take_a_turn(stage: Stage) -> None:
    with stage.turn(PATIENCE_S):
        pass


async def test_the_controller_does_one_thing_at_a_time_and_only_for_who_knows_the_token() -> None:
    stage, controller = FakeStage(), Controller(print)
    known = {"authorization": f"Bearer {controller.token}"}
    with controller.serving(stage):
        async with httpx.AsyncClient(base_url=controller.url, timeout=PATIENCE_S) as client:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": controller.token[:-1]}):
                assert (await client.post("/actions/redis_away", json={}, headers=headers)).status_code == 403
                assert (await client.get("/state", headers=headers)).status_code == 403
            assert not stage.begun.is_set()
            assert (await client.get("/state", headers=known)).json() == {"state": {}}
            first = asyncio.create_task(client.post("/actions/redis_away", json={}, headers=known))
            await asyncio.to_thread(stage.begun.wait, PATIENCE_S)
            second = await client.post("/actions/redis_back", json={}, headers=known)
            assert (second.status_code, second.json()["code"]) == (409, "busy")
            assert not stage.after.is_set()
            stage.let.set()
            assert (await first).json() == {"done": "it was done", "mark": "Done"}
            assert await asyncio.to_thread(stage.after.wait, PATIENCE_S), "what comes after, comes once it was read"
            await asyncio.to_thread(take_a_turn, stage)  # which was still held then
            for path, body in {"/actions/nope": "{}", "/actions/mode": '{"mode": "x"}', "/actions/expire": "{"}.items():
                answer = await client.post(path, content=body, headers=known)
                assert answer.status_code in (404, 422), path
    controller.close()


def test_a_turn_that_does_not_come_is_told_as_that() -> None:
    stage = FakeStage()
    with stage.turn(), pytest.raises(ActionError, match="another action is under way"), stage.turn(0.01):
        pytest.fail("two at a time")
    with stage.turn():
        stage.let.set()
        assert stage.do("redis_away", Nothing()).mark == "Done"


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ({"origin": 1, "shared": 19}, "loaded it once"),
        ({"origin": 12, "l2": 8}, "loaded it 12 times"),
        ({"l1": 19, "timeout": 1}, "loaded it 0 times, 1 got timeout"),
        ({"status 404": 20}, "answered nobody, 20 got status 404"),
    ],
)
def test_a_stampede_is_told_by_its_loads_and_by_what_went_wrong(sources: dict[str, int], told: str) -> None:
    assert _outcome(Counter(sources)) == told


class Page:
    """What a visitor does on the page of a running stack."""

    def __init__(self, client: httpx.AsyncClient, events: Events) -> None:
        self.client = client
        self.events = events

    async def does(self, action: str, **arguments: object) -> str:
        """It is done, and marked."""
        answer = await self.client.post(f"/actions/{action}", json=arguments)
        assert answer.status_code == 200, answer.text
        assert (await self.events.next("mark"))["kind"] == action
        done: str = answer.json()["done"]
        return done

    async def is_refused(self, action: str, status: int, why: str, **arguments: object) -> None:
        answer = await self.client.post(f"/actions/{action}", json=arguments)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
        assert why in answer.json()["detail"]

    async def source(self, template_id: int) -> str:
        answer = await self.client.get("/template-details", params={"id": template_id})
        assert answer.status_code == 200
        return answer.headers["x-cache"]


@asynccontextmanager
async def greeted(url: str, mode: str = "full") -> AsyncIterator[tuple[Events, dict[str, Any]]]:
    """A stream, and its greeting, once the controller answers in time and knows of the mode."""
    async with AsyncExitStack() as opened:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                events = await opened.enter_async_context(listening(f"{url}/events"))
                hello = await events.next("hello")
                if (hello["controls"] or {}).get("state", {}).get("mode") == mode:
                    break
                await opened.aclose()
        yield events, hello


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_action_does_what_it_says_on_a_running_stack(run: Run) -> None:
    command = up(run, load_delay_ms=100)
    (command.folder / "out").mkdir(exist_ok=True)
    (command.folder / "out" / "lab.html").write_text("<title>The &lt;lab&gt;</title>")
    said = await ready(command)
    url = said["http_url"]
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        async with greeted(url) as (events, hello):
            page = Page(client, events)
            assert hello["controls"]["actions"] == list(ACTIONS)
            assert (hello["controls"]["modes"], hello["controls"]["max_callers"]) == (
                [each.value for each in Mode],
                1000,
            )
            assert hello["controls"]["state"] == {"redis": "there", "postgres": "normal", "mode": "full"}
            assert hello["links"] == [{"title": "Loom", "url": said["loom_url"]}]
            assert hello["reports"] == [{"name": "lab", "title": "The <lab>", "url": "/reports/lab.html"}]
            report = await client.get("/reports/lab.html")
            assert (report.status_code, report.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "script-src" not in report.headers["content-security-policy"]

            await caches_and_templates(page)
            await stampedes(page)
            await refusals(page)
            await redis_away_and_back(page)
            await page.does("postgres_slow", ms=30)
            await page.is_refused("postgres_slow", 422, "statement timeout", ms=5_000)
            await page.does("postgres_normal")
            counted = (await client.get("/metrics")).text
            for action, end, count in (
                ("stampede", "done", 3),
                ("redis_back", "refused", 1),
                ("postgres_slow", "refused", 1),
            ):
                assert f'live_actions_total{{action="{action}",end="{end}"}} {count}.0' in counted
            assert 'end="failed"} 1' not in counted
            await page.does("mode", mode="none")
            await events.ended()
        await in_another_mode(url, client)
    command.interrupt()
    await until(lambda: not command.is_running, "it ends", PATIENCE_S)
    assert (command.process.returncode, "Traceback" in command.stderr) == (0, False)
    await until(lambda: not command.processes(), "no process is left", PATIENCE_S)


async def caches_and_templates(page: Page) -> None:
    assert [await page.source(1) for _ in range(2)] == ["origin", "l1"]
    assert "template 1 expired" in await page.does("expire", id=1)
    assert [await page.source(1) for _ in range(2)] == ["origin", "l1"]
    before = (await page.client.get("/template-details?id=1")).json()
    assert "template 1 changed, to version 2" in await page.does("change", id=1)
    after = (await page.client.get("/template-details?id=1")).json()
    assert (after["name"], after["version"]) == (before["name"], 2)
    await page.is_refused("change", 404, "there is no template with id 99999", id=99_999)


async def stampedes(page: Page) -> None:
    await page.does("postgres_slow", ms=1_000)  # on a busy machine the callers come one by one
    assert "loaded it once" in await page.does("stampede", callers=40, id=9)
    picture = await page.events.next("stampede")
    assert (picture["app"], picture["mode"], picture["key"]) == ("app", "full", "9")
    # On a busy machine some may come when it is over, and are hits that nobody draws.
    assert LEAST_CALLERS <= picture["callers"] == len(picture["lanes"]) <= 40
    assert picture["loads"] == 1
    assert [lane["end"] for lane in picture["lanes"]].count("loaded") == 1
    assert "40 callers" in await page.does("stampede", callers=40)
    assert (await page.events.next("stampede"))["loads"] == 1
    await page.does("postgres_normal")


async def refusals(page: Page) -> None:
    await page.is_refused("stampede", 422, "less than or equal to 1000", callers=10_000)
    await page.is_refused("stampede", 422, "valid integer", callers="many")
    await page.is_refused("stampede", 422, "greater than or equal to 1", callers=10, id=0)
    await page.is_refused("expire", 422, "id: Field required")
    await page.is_refused("redis_away", 422, "how", how="hard")
    await page.is_refused("mode", 422, "'none', 'mutex', 'singleflight', 'fleet' or 'full'", mode="bogus")
    await page.is_refused("mode", 409, "full already", mode="full")
    own = f"http://{page.client.base_url.netloc.decode()}"
    for headers, status in (
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "["}, 403),
        ({"origin": "http://["}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": own, "sec-fetch-site": "same-origin", "content-type": "text/plain"}, 415),
        ({"origin": own, "sec-fetch-site": "same-origin"}, 400),
    ):
        answer = await page.client.post(
            "/actions/expire", content=b"{", headers={"content-type": "application/json", **headers}
        )
        assert answer.status_code == status, (headers, answer.text)
    for token in ("", "Bearer wrong"):
        answer = await page.client.post("/actions/expire/here", json={"id": 1}, headers={"authorization": token})
        assert answer.status_code == 403


async def redis_away_and_back(page: Page) -> None:
    await page.is_refused("redis_back", 409, "Redis is there")
    await page.does("redis_away")
    await page.is_refused("redis_away", 409, "away already")
    assert "Redis can't be told" in await page.does("expire", id=500)
    assert await page.source(500) == "origin", "the application goes on without it"
    assert "loaded it once" in await page.does("stampede", callers=20)
    await page.does("redis_back")


async def in_another_mode(url: str, client: httpx.AsyncClient) -> None:
    """It was started anew on the same port; whoever looked comes again."""

    async def answers() -> bool:
        try:
            return 'mode="none"' in (await client.get("/metrics")).text
        except httpx.HTTPError:
            return False

    await until(answers, "it serves in the other mode", 2 * PATIENCE_S)
    async with greeted(url, "none") as (events, hello):
        assert (hello["app"], hello["controls"]["state"]["mode"]) == ("none", "none")
        assert (await events.next("sample"))["apps"]["app"]["mode"] == "none"
        page = Page(client, events)
        await page.does("postgres_slow", ms=500)
        await page.does("stampede", callers=40)
        assert (await events.next("stampede"))["loads"] > 1
        await page.does("redis_away")  # and so it is when all ends
