"""Gets and changing subscriptions on one stream."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import grpc

from app.client.errors import CallError, DeadlineExceededError, UnavailableError, call_error, status_error
from app.client.template import News
from app.proto.template.v1.template_pb2 import SyncTemplatesRequest, SyncTemplatesResponse

Allot = Callable[[], float | None]
ENDED = UnavailableError(grpc.StatusCode.UNAVAILABLE, "the service has ended the stream")


class Sync:
    """One SyncTemplates call; `async with` it. Iterating gives the news of what is subscribed, until it is left.

    Requests may be made at the same time by several tasks, each for as long as `allot` says, and are answered as their
    answers come; each raises a `CallError` of its own. News that nobody has taken yet is kept, the newest of each
    template. Where the call breaks off, iterating raises its error, and so do all requests, those to come included:
    whoever has subscribed must know that there is no more news. Begin another then.
    """

    def __init__(self, begin: Callable[[], Any], allot: Allot) -> None:
        self._begin = begin
        self._allot = allot
        self._tags = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[SyncTemplatesResponse | None]] = {}
        self._news: dict[int, News] = {}
        self._changed = asyncio.Event()
        # Each caller has one at most, and takes it back when it leaves.
        self._unsent: dict[int, SyncTemplatesRequest] = {}
        self._asked = asyncio.Event()
        self._ended: CallError | None = None

    async def __aenter__(self) -> Self:
        self._call = self._begin()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end(CallError(grpc.StatusCode.CANCELLED, "the stream was left"))

    async def get(self, template_id: int) -> News:
        """What is known of a template now; its absence is no error."""
        request = SyncTemplatesRequest(get=SyncTemplatesRequest.Get(id=template_id))
        return News.of((await self._ask(request)).state)

    async def subscribe(self, ids: Iterable[int]) -> None:
        """Once this returns, the state of each is news, and so is every change of it."""
        await self._ask(SyncTemplatesRequest(subscribe=SyncTemplatesRequest.Subscribe(ids=ids)))

    async def unsubscribe(self, ids: Iterable[int]) -> None:
        """Once this returns, there is no news of these any more."""
        ids = list(ids)
        await self._ask(SyncTemplatesRequest(unsubscribe=SyncTemplatesRequest.Unsubscribe(ids=ids)))
        for template_id in ids:
            self._news.pop(template_id, None)

    async def __aiter__(self) -> AsyncIterator[News]:
        while True:
            while self._news:
                yield self._news.pop(next(iter(self._news)))
            self._check()
            self._changed.clear()
            await self._changed.wait()

    async def _ask(self, request: SyncTemplatesRequest) -> SyncTemplatesResponse:
        self._check()
        request.tag = next(self._tags)
        answered: asyncio.Future[SyncTemplatesResponse | None]
        answered = self._waiting[request.tag] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._allot()):
                self._unsent[request.tag] = request
                self._asked.set()
                answer = await answered
        except TimeoutError:
            raise DeadlineExceededError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from None
        finally:
            del self._waiting[request.tag]
            self._unsent.pop(request.tag, None)
        if answer is None:
            self._check()
            raise AssertionError("only the end of the call leaves a request without an answer")
        if answer.HasField("error"):
            raise status_error(answer.error)
        return answer

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._take(message)
            self._end(ENDED)
        except grpc.aio.AioRpcError as error:
            self._end(call_error(error))

    async def _write(self) -> None:
        # In a task of its own: gRPC sends one message at a time, and ends the call of a write that is cancelled.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call is over; who reads knows why
            while True:
                while self._unsent:
                    await self._call.write(self._unsent.pop(next(iter(self._unsent))))
                self._asked.clear()
                await self._asked.wait()

    def _take(self, message: SyncTemplatesResponse) -> None:
        if not message.tag:
            news = News.of(message.state)
            if (untold := self._news.pop(news.id, None)) is not None:
                skipped = untold.versions_skipped + 1 + news.versions_skipped
                news = replace(news, versions_skipped=skipped)
            self._news[news.id] = news
            self._changed.set()
        elif (answered := self._waiting.get(message.tag)) is not None and not answered.done():
            answered.set_result(message)

    def _end(self, error: CallError) -> None:
        """The first error counts."""
        self._ended = self._ended or error
        self._changed.set()
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_result(None)

    def _check(self) -> None:
        """Raises where the call is over, an instance for each who asks."""
        if self._ended is not None:
            raise type(self._ended)(self._ended.status, self._ended.text, self._ended.details)
