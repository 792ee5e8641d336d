from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from app.loadtest.http import Response
from app.loadtest.open_loop import Answer, Endpoint, OpenLoop, template_version
from tests.loadtest.fake_app import FakeApp


def endpoint(app: FakeApp, number: int = 0, *, timeout_s: float = 5.0, most: int = 100) -> Endpoint:
    return Endpoint(number, "127.0.0.1", app.port, timeout_s=timeout_s, most=most)


@pytest.fixture
async def app() -> AsyncIterator[FakeApp]:
    async with FakeApp() as serving:
        yield serving


class Recorder:
    """Keeps answers, and tells when so many are there."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._wanted = 0
        self._reached = asyncio.Event()

    def __call__(self, answer: Answer) -> None:
        self.answers.append(answer)
        if len(self.answers) >= self._wanted:
            self._reached.set()

    async def reached(self, count: int) -> None:
        self._wanted = count
        self._reached.clear()
        await asyncio.wait_for(self._reached.wait(), 30)


async def sent_for(loop: OpenLoop, recorder: Recorder, count: int) -> None:
    """Let the loop run until so many answers are there."""
    task = asyncio.create_task(loop.run())
    await recorder.reached(count)
    task.cancel()
    await asyncio.wait({task})


async def test_requests_are_sent_on_time_though_nobody_answers() -> None:
    async with FakeApp(crowd=20) as app:  # which answers only once 20 have come
        recorder = Recorder()
        place = endpoint(app)
        await sent_for(OpenLoop([place], 200, lambda: 1, recorder), recorder, 20)
        place.close()
    first = sorted(recorder.answers, key=lambda answer: answer.due)[:20]
    assert not any(answer.error for answer in first)
    # The first waited for the other nineteen, due over 95 ms; had the loop waited for it, they had never come.
    assert first[0].seconds >= 19 / 200
    assert first[-1].due - first[0].due == pytest.approx(19 / 200)


async def test_latency_counts_from_the_scheduled_time_where_connections_are_short() -> None:
    async with FakeApp(faults={1: "hang"}) as app:
        place = endpoint(app, timeout_s=1.0, most=1)
        due = time.monotonic()
        hung, behind = await asyncio.gather(place.get(1, due), place.get(1, due))
        place.close()
    assert (hung.status, hung.error) == (0, "timeout")
    assert behind.status == 200
    assert behind.sent - behind.due >= 0.99
    assert behind.seconds >= 0.99


def test_what_was_sent_a_little_early_did_not_wait() -> None:
    assert Answer(1, 0, 10.0, 9.999, 9.9995, 200, "l1", 1, "").seconds == pytest.approx(0.0005)


async def test_servers_take_turns_and_a_resting_one_gets_nothing(app: FakeApp) -> None:
    recorder = Recorder()
    places = [endpoint(app, number) for number in range(3)]
    loop = OpenLoop(places, 500, lambda: 1, recorder)
    loop.rest(1)
    await sent_for(loop, recorder, 20)
    assert {answer.server for answer in recorder.answers} == {0, 2}
    recorder.answers.clear()
    loop.resume(1)
    await sent_for(loop, recorder, 30)
    turns = Counter(answer.server for answer in recorder.answers)
    assert set(turns) == {0, 1, 2}
    assert max(turns.values()) - min(turns.values()) <= 1
    for place in places:
        place.close()


async def test_the_end_of_the_loop_waits_for_what_is_under_way() -> None:
    async with FakeApp(crowd=3) as app:
        answers: list[Answer] = []
        place = endpoint(app, timeout_s=0.3)
        task = asyncio.create_task(OpenLoop([place], 20, lambda: 1, answers.append).run())
        await asyncio.wait_for(app.reached.wait(), 10)
        task.cancel()
        await asyncio.wait({task})
        assert app.requests == len(answers) >= 1
        place.close()


async def test_a_failed_request_is_an_answer_too() -> None:
    async with FakeApp(faults={1: "refuse", 2: "cut"}) as app:
        place = endpoint(app)
        refused, cut, good = [await place.get(1) for _ in range(3)]
        place.close()
    assert (refused.status, refused.error) == (503, "status 503")
    assert (cut.status, cut.error) == (0, "connection cut in mid-response")
    assert (good.status, good.error) == (200, "")


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (b'{"id":1,"name":"x","body":"y","version":12,"updated_at":"2025-01-01T00:00:00Z"}', 12),
        (rb'{"id":1,"name":"x","body":"\"version\":7,","version":3,"updated_at":"2025-01-01T00:00:00Z"}', 3),
        (b'{"id":1}', 0),
    ],
)
def test_the_version_is_the_fields_and_not_one_in_a_text(body: bytes, version: int) -> None:
    assert template_version(Response(200, "l1", body, 0.0)) == version
    assert template_version(Response(404, "l1", body, 0.0)) == 0
