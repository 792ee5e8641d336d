"""SyncTemplates: gets, and watches that change as the call goes on, on one stream."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeAlias

import grpc

from app.api.grpc import convert
from app.api.grpc.statuses import rpc_status, status_of
from app.api.grpc.watch import encoded
from app.domain.errors import DomainError, InvalidInputError, Violation
from app.domain.ports import Reading
from app.proto.template.v1.template_pb2 import SyncTemplatesRequest, SyncTemplatesResponse, WatchTemplatesResponse
from app.watching.watch import News, Watch

MAX_UNANSWERED = 64
"""Most requests of one stream that are read and not answered yet; the next is read when one of them is."""

_log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[SyncTemplatesRequest, SyncTemplatesResponse]"


class Reader(Protocol):
    """What a get needs of the service."""

    async def state(self, template_id: int) -> Reading:
        """As `app.service.TemplateService.state`."""
        ...


class Conversation:
    """One stream. Requests are read in a task of their own and gets run in theirs; one writer answers.

    Subscriptions change where their answer is written, in the order of the requests: so what is written before `done`
    was so before it, and what follows it is so after it.

    `ready` is the event that `watch` sets. Once the caller has half-closed, what it asked for is answered, the state
    now of each subscribed template with it, and the call ends.
    """

    def __init__(self, service: Reader, watch: Watch, ready: asyncio.Event, context: Context) -> None:
        self._service = service
        self._watch = watch
        self._ready = ready
        self._context = context
        self._unanswered = asyncio.Semaphore(MAX_UNANSWERED)
        self._answers: deque[Callable[[], SyncTemplatesResponse]] = deque()
        self._gets: set[asyncio.Task[None]] = set()

    async def run(self, requests: AsyncIterator[SyncTemplatesRequest]) -> None:
        """Returns when all is answered after a half-close. Raises what `Watch.take` does, with the gets answered."""
        reading = asyncio.create_task(self._read(requests))
        reading.add_done_callback(lambda _: self._ready.set())
        try:
            with self._watch:
                await self._write(reading)
        finally:
            tasks = [reading, *self._gets]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[SyncTemplatesRequest]) -> None:
        async for request in requests:
            await self._unanswered.acquire()
            if request.WhichOneof("action") == "get":
                get = asyncio.create_task(self._get(request.tag, request.get.id))
                self._gets.add(get)
                get.add_done_callback(self._got)
            else:
                self._answer(lambda request=request: self._subscriptions(request))  # type: ignore[misc]

    async def _get(self, tag: int, template_id: int) -> None:
        try:
            reading = await self._service.state(template_id)
        except Exception as error:  # noqa: BLE001 - it is the answer
            if status_of(error) is grpc.StatusCode.INTERNAL:
                _log.error("a get in a stream failed", exc_info=error)
            answer = SyncTemplatesResponse(tag=tag, error=rpc_status(error))
        else:
            state = convert.state(template_id, reading.version, reading.payload)
            answer = SyncTemplatesResponse(tag=tag, state=WatchTemplatesResponse(state=state))
        self._answer(lambda: answer)

    def _got(self, get: asyncio.Task[None]) -> None:
        self._gets.discard(get)
        self._ready.set()  # it may have been the last

    def _answer(self, answer: Callable[[], SyncTemplatesResponse]) -> None:
        self._answers.append(answer)
        self._ready.set()

    def _subscriptions(self, request: SyncTemplatesRequest) -> SyncTemplatesResponse:
        """Changes them as the request says."""
        try:
            match request.WhichOneof("action"):
                case "subscribe":
                    self._watch.add(request.subscribe.ids)
                case "unsubscribe":
                    self._watch.remove(request.unsubscribe.ids)
                case _:
                    raise InvalidInputError(Violation("action", "must be get, subscribe or unsubscribe"))
        except DomainError as error:
            return SyncTemplatesResponse(tag=request.tag, error=rpc_status(error))
        return SyncTemplatesResponse(tag=request.tag, done=SyncTemplatesResponse.Done())

    async def _write(self, reading: asyncio.Task[None]) -> None:
        ended: Exception | None = None
        while True:
            self._ready.clear()
            while True:
                news = None
                if ended is None:
                    try:
                        news = self._watch.take()
                    except DomainError as error:
                        ended = error
                        reading.cancel()
                if news is not None:
                    await self._context.write(_told(news))
                if self._answers:
                    await self._context.write(self._answers.popleft()())
                    self._unanswered.release()
                elif news is None:
                    break
            if reading.done() and not self._gets:
                if ended is not None:
                    raise ended
                reading.result()
                if self._watch.is_settled:
                    return
            await self._ready.wait()


def _told(news: News) -> SyncTemplatesResponse:
    return SyncTemplatesResponse(state=WatchTemplatesResponse.FromString(encoded(news)))
