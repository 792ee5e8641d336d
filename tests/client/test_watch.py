from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from app.client.errors import (
    DETAILS_KEY,
    DeadlineExceededError,
    InvalidArgumentError,
    OverloadedError,
    UnavailableError,
)
from app.client.templates import TemplateClient
from app.client.watch import FIRST_PAUSE_S, LONGEST_PAUSE_S, Follower, Pauses, follow
from app.concurrency.budget import budget
from app.proto.template.v1.template_pb2 import WatchTemplatesRequest, WatchTemplatesResponse
from tests.client.fake_service import Context, FakeService, failing, serving, state, telling, to
from tests.concurrency.fake_clock import FakeClock


async def versions(client: TemplateClient, ids: list[int], count: int, **options: Any) -> list[tuple[int, int, int]]:
    """The first `count` news, as id, version and how many were skipped."""
    told = []
    async with aclosing(client.watch(ids, **options)) as watch, asyncio.timeout(30):
        async for news in watch:
            told.append((news.id, news.version, news.versions_skipped))
            if len(told) == count:
                break
    return told


async def test_a_watch_tells_each_state_deletions_and_ids_that_never_were() -> None:
    answers = [telling(state(1, 3), state(2, 0, gone=True), state(1, 4, gone=True), state(1, 9, skipped=4))]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        watch = client.watch([1, 2, 1])
        told = [await anext(watch) for _ in range(4)]
        await watch.aclose()
    assert [(n.id, n.version, n.template is None, n.versions_skipped) for n in told] == [
        (1, 3, False, 0),
        (2, 0, True, 0),
        (1, 4, True, 0),
        (1, 9, False, 4),
    ]
    assert service.requests == [WatchTemplatesRequest(ids=[1, 2])]
    assert service.time_remaining == [None]  # no deadline


@pytest.mark.parametrize("ending", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.OK])
async def test_a_watch_that_the_service_ends_goes_on_in_another_call(ending: grpc.StatusCode) -> None:
    answers = [telling(state(1, 3), then=ending), telling(state(1, 5))]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        assert await versions(client, [1], 2) == [(1, 3, 0), (1, 5, 1)]
        assert client.ended == {"stable": {ending.name: 1}}
    assert service.calls == 2


async def test_after_a_break_nothing_is_told_twice_and_nothing_older_after_something_newer() -> None:
    answers = [
        telling(state(1, 7), state(2, 2), then=grpc.StatusCode.UNAVAILABLE),
        telling(state(1, 6), state(2, 2), state(1, 7), state(2, 3)),  # a replica that is behind
    ]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        assert await versions(client, [1, 2], 3) == [(1, 7, 0), (2, 2, 0), (2, 3, 0)]


async def test_a_watch_goes_on_when_the_service_was_away() -> None:
    first = FakeService(answers=[telling(state(1, 1))])
    async with serving(first) as service:
        client = await to(service).__aenter__()
        watch = client.watch([1])
        assert (await anext(watch)).version == 1
        following = asyncio.create_task(anext(watch))
        await asyncio.sleep(0)
    second = FakeService(answers=[telling(state(1, 2))])
    async with serving(second, f"127.0.0.1:{first.port}"):
        assert (await asyncio.wait_for(following, 30)).version == 2
        await watch.aclose()
        await client.__aexit__(None, None, None)


async def test_a_watch_that_is_refused_ends_with_the_refusal_and_is_not_tried_again() -> None:
    answers = [failing(grpc.StatusCode.INVALID_ARGUMENT, "ids: at least one")]
    async with serving(FakeService(answers=answers)) as service, to(service) as client:
        with pytest.raises(InvalidArgumentError, match="at least one"):
            await anext(client.watch([]))
    assert service.calls == 1


async def test_a_service_that_is_not_there_is_told_when_patience_is_over() -> None:
    async with serving(FakeService()) as gone:
        pass
    async with to(gone) as client:
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(anext(client.watch([1], patience_s=0.2)), 20)


async def test_closing_a_watch_ends_its_call() -> None:
    left = asyncio.Event()

    async def answer(request: Any, context: Context) -> None:
        try:
            await context.write(state(1, 1))
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.set()
            raise

    async with serving(FakeService(answers=[answer])) as service, to(service) as client:
        assert await versions(client, [1], 1) == [(1, 1, 0)]
        await asyncio.wait_for(left.wait(), 10)


async def test_a_watch_within_a_budget_ends_with_it() -> None:
    async with serving(FakeService(answers=[telling(state(1, 1))])) as service, to(service) as client:
        with budget(0.3), pytest.raises(DeadlineExceededError):
            await versions(client, [1], 2)


class Calls:
    """Watch calls, each told what to do; no network."""

    def __init__(
        self, clock: FakeClock, *calls: Sequence[tuple[float, WatchTemplatesResponse | Exception | None]]
    ) -> None:
        self._clock = clock
        self._calls = list(calls)
        self.made = 0
        self.cancelled = 0

    def __call__(self) -> Calls:
        self.made += 1
        return self

    async def _run(self) -> AsyncIterator[WatchTemplatesResponse]:
        for after_s, what in self._calls.pop(0) if len(self._calls) > 1 else self._calls[0]:
            self._clock.advance(after_s)
            if isinstance(what, Exception):
                raise what
            if what is not None:
                yield what

    def __aiter__(self) -> AsyncIterator[WatchTemplatesResponse]:
        return self._run()

    def cancel(self) -> bool:
        self.cancelled += 1
        return True


def unavailable(retry_after_s: float = 0) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    status = grpc.StatusCode.UNAVAILABLE
    if retry_after_s:
        status = grpc.StatusCode.RESOURCE_EXHAUSTED
        details, retry = Status(), RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after_s * 1e3))
        details.details.add().Pack(retry)
        trailing = grpc.aio.Metadata((DETAILS_KEY, details.SerializeToString()))
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), trailing)


class Slept:
    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.pauses: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._clock.advance(seconds)


def most() -> float:
    return 1.0


async def test_pauses_grow_to_a_limit_until_patience_is_over() -> None:
    clock = FakeClock()
    slept, calls = Slept(clock), Calls(clock, [(0, unavailable())])
    with pytest.raises(UnavailableError):
        await anext(follow(calls, patience_s=60, clock=clock, sleep=slept, pauses=Pauses(most)))
    assert slept.pauses[:8] == [FIRST_PAUSE_S * 2**n for n in range(6)] + [LONGEST_PAUSE_S] * 2
    assert 60 - LONGEST_PAUSE_S <= sum(slept.pauses) <= 60
    assert calls.cancelled == calls.made == len(slept.pauses) + 1


async def test_pauses_are_spread_at_random() -> None:
    assert Pauses(lambda: 0.0).take() == FIRST_PAUSE_S / 2
    assert Pauses(lambda: 1.0).take() == FIRST_PAUSE_S


async def test_a_service_that_says_when_to_come_back_is_not_asked_before() -> None:
    clock = FakeClock()
    slept, calls = Slept(clock), Calls(clock, [(0, unavailable(retry_after_s=7))])
    with pytest.raises(OverloadedError):
        await anext(follow(calls, patience_s=20, clock=clock, sleep=slept, pauses=Pauses(most)))
    assert slept.pauses == [7, 7]


async def test_patience_begins_anew_with_all_that_is_heard_and_a_quiet_watch_is_no_silence() -> None:
    clock = FakeClock()
    slept = Slept(clock)
    quiet = [(0.0, state(1, 1)), (500.0, unavailable())]
    again = [(0.0, state(1, 2)), (500.0, None)]
    calls = Calls(clock, quiet, again, [(0, unavailable())])
    watch = follow(calls, patience_s=30, clock=clock, sleep=slept, pauses=Pauses(most))
    assert [(await anext(watch)).version for _ in range(2)] == [1, 2]
    with pytest.raises(UnavailableError):
        await anext(watch)
    assert slept.pauses[:2] == [FIRST_PAUSE_S, FIRST_PAUSE_S]


async def test_a_service_that_ends_each_call_at_once_is_not_asked_in_a_busy_loop() -> None:
    clock = FakeClock()
    slept = Slept(clock)
    calls = Calls(clock, *([(0.0, state(1, n)), (0.0, unavailable())] for n in range(1, 9)), [(0, unavailable())])
    watch = follow(calls, patience_s=60, clock=clock, sleep=slept, pauses=Pauses(most))
    for _ in range(8):
        await anext(watch)
    assert slept.pauses == sorted(slept.pauses)
    assert slept.pauses[-1] == LONGEST_PAUSE_S


def test_what_was_skipped_over_a_break_is_counted_and_then_the_service_counts() -> None:
    follower = Follower()

    def skipped(version: int, said: int = 0) -> int | None:
        news = follower.news(state(1, version, skipped=said))
        return None if news is None else news.versions_skipped

    assert [skipped(3), skipped(5, 1), skipped(5), skipped(4)] == [0, 1, None, None]
    follower.began_anew()
    assert [skipped(5), skipped(8, 2)] == [None, 2]
    follower.began_anew()
    assert [skipped(10), skipped(11)] == [1, 0]
