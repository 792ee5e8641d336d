"""The service, as one object."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from app.client.canary import Canary
from app.client.channel import Metadata, metadata, open_channel
from app.client.endpoint import DEFAULT_TARGET, Endpoint
from app.client.errors import DeadlineExceededError, call_error
from app.client.imports import batches
from app.client.status import told_whole
from app.client.sync import Sync
from app.client.template import Details, Imported, News, Template
from app.client.watch import follow
from app.concurrency.budget import BudgetExceededError, allotted
from app.proto.template.v1 import template_pb2 as pb
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from app.telemetry.tracing import outgoing

TIMEOUT_S = 5.0
IMPORT_TIMEOUT_S = 300.0
PATIENCE_S = 60.0
MARGIN_S, MARGIN_SHARE = 0.01, 0.02
"""What is kept back of a caller's time for the way of the answer to that caller. A share, because gRPC sends timeouts
with few digits and rounds them up by as much as a hundredth: each call of a chain had more than the one before."""


class _Route:
    """One version of the service, and how the calls to it ended, by the names of their statuses."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.channel = open_channel(endpoint)
        self.stub = TemplateServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self._metadata = metadata(endpoint)
        self.ended: Counter[str] = Counter()

    @property
    def metadata(self) -> Metadata:
        """What goes along with a call made now: the caller's trace, too, so that the service continues it."""
        return (*self._metadata, *outgoing())


class TemplateClient:
    """`async with` it; it belongs to the event loop in which that is done.

    A unary call may take `timeout_s` seconds, retries included, unless the call says otherwise; within a budget
    (`app.concurrency.budget`) no longer than that has left, and where nothing is left it ends in
    `DeadlineExceededError` without having been made. Every method raises a `CallError`.

    Every write goes out with a request id, made here unless the caller gives one: so gRPC may send it again where the
    answer was lost, and it is still carried out once. Whoever wants to try again later, after an error, gives the same
    id again.

    `canary` takes its share of unary calls.
    """

    def __init__(
        self, endpoint: Endpoint | str = DEFAULT_TARGET, *, timeout_s: float = TIMEOUT_S, canary: Canary | None = None
    ) -> None:
        self._endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
        self._timeout_s = timeout_s
        self._canary = canary
        self._routes: dict[str, _Route] = {}

    async def __aenter__(self) -> Self:
        self._routes["stable"] = _Route(self._endpoint)
        if self._canary is not None:
            self._routes["canary"] = _Route(self._canary.endpoint)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        routes, self._routes = self._routes, {}
        for route in routes.values():
            await route.channel.close()

    @property
    def ended(self) -> Mapping[str, Mapping[str, int]]:
        """How many calls ended with which status (`OK`, `UNAVAILABLE` …), for `stable` and `canary`.

        Whether a canary does well is to be seen here.
        """
        return {name: dict(route.ended) for name, route in self._routes.items()}

    async def get(self, template_id: int, *, timeout_s: float | None = None) -> Details:
        request = pb.GetTemplateDetailsRequest(id=template_id)
        return Details.of(await self._call("GetTemplateDetails", request, str(template_id), timeout_s))

    async def create(
        self, name: str, body: str, *, request_id: str | None = None, timeout_s: float | None = None
    ) -> Template:
        request_id = request_id or _made_id()
        request = pb.CreateTemplateRequest(template=pb.NewTemplate(name=name, body=body), request_id=request_id)
        return Template.of((await self._call("CreateTemplate", request, request_id, timeout_s)).template)

    async def update(
        self,
        template_id: int,
        *,
        name: str | None = None,
        body: str | None = None,
        expected_version: int | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Template:
        """Writes the fields that are given, and leaves the others as they are; none at all is a `ValueError`.

        With `expected_version`, only if the template is at that one, else `AbortedError`.
        """
        given = [field for field, text in (("name", name), ("body", body)) if text is not None]
        if not given:
            raise ValueError("an update needs a name, a body or both")
        request = pb.UpdateTemplateRequest(
            template=pb.Template(id=template_id, name=name or "", body=body or ""),
            update_mask=FieldMask(paths=given),
            expected_version=expected_version,
            request_id=request_id or _made_id(),
        )
        return Template.of((await self._call("UpdateTemplate", request, str(template_id), timeout_s)).template)

    async def delete(
        self,
        template_id: int,
        *,
        expected_version: int | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """The deletion's own version, above all that the template had."""
        request = pb.DeleteTemplateRequest(
            id=template_id, expected_version=expected_version, request_id=request_id or _made_id()
        )
        return int((await self._call("DeleteTemplate", request, str(template_id), timeout_s)).version)

    async def watch(self, ids: Iterable[int], *, patience_s: float = PATIENCE_S) -> AsyncGenerator[News, None]:
        """The current value of each template, then every change, without end; `contextlib.aclosing` ends it.

        Where the stream breaks off, or the service ends it, it watches again, with growing pauses, and goes on with
        what is new since: never with an older version of a template than it has told, nor with the same again. Raises
        a `CallError` when the service refuses, or could not be reached for `patience_s` seconds. Within a budget it
        ends in `DeadlineExceededError` when that is over.
        """
        request = pb.WatchTemplatesRequest(ids=dict.fromkeys(ids))
        route = self._route()

        def call() -> grpc.aio.UnaryStreamCall[pb.WatchTemplatesRequest, pb.WatchTemplatesResponse]:
            return route.stub.WatchTemplates(request, timeout=_allotted(None), metadata=route.metadata)

        async with aclosing(follow(call, patience_s=patience_s, tally=route.ended)) as followed:
            async for news in followed:
                yield news

    def sync(self, *, timeout_s: float | None = None) -> Sync:
        """Gets and changing subscriptions on one stream, each request of which may take `timeout_s` seconds."""
        route = self._route()
        return Sync(
            lambda: told_whole(route.stub.SyncTemplates(timeout=_allotted(None), metadata=route.metadata)),
            lambda: _allotted(self._timeout_s if timeout_s is None else timeout_s),
        )

    async def import_templates(
        self,
        templates: Iterable[tuple[str, str]] | AsyncIterable[tuple[str, str]],
        *,
        request_id: str | None = None,
        timeout_s: float = IMPORT_TIMEOUT_S,
    ) -> Imported:
        """Makes any number of templates, each a name and a body, all or none.

        They are taken from the iterable as fast as the service takes them in. What it raises is passed on, and then
        nothing is imported. `timeout_s` bounds the whole.
        """
        route = self._route()
        call = told_whole(route.stub.ImportTemplates(timeout=_allotted(timeout_s), metadata=route.metadata))
        sending = asyncio.create_task(_send(call, batches(templates, request_id or _made_id())))
        answer = asyncio.create_task(_outcome(route, call))
        try:
            await asyncio.wait({sending, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                sending.result()
            return Imported.of(await answer)
        finally:
            # Where the call is over first, the iterable may have more, or be waiting for it.
            call.cancel()
            sending.cancel()
            await asyncio.gather(sending, answer, return_exceptions=True)

    def _route(self, key: str | None = None) -> _Route:
        """Where a unary call for this key goes, or a stream, which has none."""
        if not self._routes:
            raise RuntimeError("a TemplateClient is to be used within its `async with`")
        to_canary = key is not None and self._canary is not None and self._canary.takes(key)
        return self._routes["canary" if to_canary else "stable"]

    async def _call(self, method: str, request: Message, key: str, timeout_s: float | None) -> Any:
        route = self._route(key)
        timeout_s = _allotted(self._timeout_s if timeout_s is None else timeout_s)
        return await _outcome(route, getattr(route.stub, method)(request, timeout=timeout_s, metadata=route.metadata))


async def _send(call: Any, messages: AsyncGenerator[pb.ImportTemplatesRequest, None]) -> None:
    """Ends when all is sent or the call is over, whose outcome then says why."""
    async with aclosing(messages):
        async for message in messages:
            try:
                await call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return
    await call.done_writing()


async def _outcome(route: _Route, call: Any) -> Any:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        route.ended[error.code().name] += 1
        raise call_error(error) from error
    route.ended["OK"] += 1
    return answer


def _allotted(timeout_s: float | None) -> float | None:
    try:
        return allotted(timeout_s, margin_s=MARGIN_S, margin_share=MARGIN_SHARE)
    except BudgetExceededError as error:
        raise DeadlineExceededError(grpc.StatusCode.DEADLINE_EXCEEDED, str(error)) from error


def _made_id() -> str:
    return str(uuid.uuid4())
