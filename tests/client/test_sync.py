from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from app.client.errors import CallError, DeadlineExceededError, InvalidArgumentError, UnavailableError
from app.client.templates import TemplateClient
from app.proto.template.v1.template_pb2 import SyncTemplatesRequest, SyncTemplatesResponse
from tests.client.fake_service import Answer, Context, FakeService, serving, state, to
from tests.faults.in_process import served


async def test_gets_and_subscriptions_share_a_stream_of_the_real_service(database_url: str, redis_url: str) -> None:
    async with (
        served(database_url, redis_url) as service,
        TemplateClient(f"127.0.0.1:{service.grpc_port}", timeout_s=30) as client,
        client.sync() as sync,
    ):
        one, absent = await asyncio.gather(sync.get(1), sync.get(10**9))
        assert (one.id, one.template is None, absent.template) == (1, False, None)
        with pytest.raises(InvalidArgumentError) as wrong:
            await sync.get(0)
        assert wrong.value.violations
        made = await client.create("synced", "one")
        await sync.subscribe([made.id])
        news = aiter(sync)
        assert (await asyncio.wait_for(anext(news), 30)).template == made
        changed = await client.update(made.id, body="two")
        assert (await asyncio.wait_for(anext(news), 30)).template == changed
        await sync.unsubscribe([made.id])
        await client.update(made.id, body="three")
        await sync.subscribe([1])
        assert (await asyncio.wait_for(anext(news), 30)).id == 1


async def test_a_stream_left_ends_at_the_service_and_takes_no_more_requests(database_url: str, redis_url: str) -> None:
    async with (
        served(database_url, redis_url) as service,
        TemplateClient(f"127.0.0.1:{service.grpc_port}", timeout_s=30) as client,
    ):
        async with client.sync() as sync:
            await sync.get(1)
        with pytest.raises(CallError, match="the stream was left"):
            await sync.get(1)


def speaking(*, after: int, then: grpc.StatusCode | None, news: tuple[Any, ...] = ()) -> Answer:
    """Answers so many requests with `done`, the first one after telling `news`; then ends, or is silent."""

    async def answer(requests: AsyncIterator[SyncTemplatesRequest], context: Context) -> None:
        answered = 0
        async for request in requests:
            if answered == 0:
                for each in news:
                    await context.write(SyncTemplatesResponse(state=each))
            if answered == after:
                if then is not None:
                    await context.abort(then, "about to stop")
                await asyncio.Event().wait()
            answered += 1
            await context.write(SyncTemplatesResponse(tag=request.tag, done=SyncTemplatesResponse.Done()))

    return answer


async def test_where_the_service_ends_the_stream_all_that_wait_are_told() -> None:
    answers = [speaking(after=1, then=grpc.StatusCode.UNAVAILABLE)]
    async with serving(FakeService(answers=answers)) as service, to(service) as client, client.sync() as sync:
        await sync.subscribe([1])
        following = asyncio.ensure_future(anext(aiter(sync)))
        asked = [asyncio.ensure_future(sync.get(n)) for n in range(1, 4)]
        outcomes = await asyncio.wait_for(asyncio.gather(following, *asked, return_exceptions=True), 30)
        assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 4
        assert len({id(outcome) for outcome in outcomes}) == 4
        with pytest.raises(UnavailableError, match="about to stop"):
            await sync.subscribe([2])


async def test_a_request_that_is_not_answered_ends_by_its_own_deadline_and_the_stream_goes_on() -> None:
    async def deaf_to_gets(requests: AsyncIterator[SyncTemplatesRequest], context: Context) -> None:
        async for request in requests:
            if request.WhichOneof("action") != "get":
                await context.write(SyncTemplatesResponse(tag=request.tag, done=SyncTemplatesResponse.Done()))

    async with serving(FakeService(answers=[deaf_to_gets])) as service, to(service) as client:
        async with client.sync(timeout_s=0.3) as sync:
            with pytest.raises(DeadlineExceededError):
                await sync.get(1)
        async with client.sync(timeout_s=10) as sync:
            slow = asyncio.ensure_future(sync.get(1))
            await sync.subscribe([1])
            slow.cancel()
            await sync.subscribe([2])


async def test_news_that_nobody_takes_is_kept_once_a_template_the_newest() -> None:
    told = (state(1, 3), state(2, 5), state(1, 4), state(1, 7, skipped=2))
    answers = [speaking(after=1, then=None, news=told)]
    async with serving(FakeService(answers=answers)) as service, to(service) as client, client.sync() as sync:
        await sync.subscribe([1, 2])  # its answer comes after the news
        news = aiter(sync)
        got = [await anext(news) for _ in range(2)]
        assert [(each.id, each.version, each.versions_skipped) for each in got] == [(2, 5, 0), (1, 7, 4)]


async def test_more_requests_than_the_service_reads_wait_and_learn_of_the_end() -> None:
    end = asyncio.Event()

    async def deaf(requests: AsyncIterator[SyncTemplatesRequest], context: Context) -> None:
        await end.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "about to stop")

    async with (
        serving(FakeService(answers=[deaf])) as service,
        to(service) as client,
        client.sync(timeout_s=60) as sync,
    ):
        ids = list(range(1, 1_001))
        asked = [asyncio.ensure_future(sync.subscribe(ids)) for _ in range(500)]  # past what flow control lets through
        await asyncio.sleep(0)
        end.set()
        outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)
    assert {type(outcome) for outcome in outcomes} == {UnavailableError}
