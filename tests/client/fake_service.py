"""A service that answers as a test tells it, on real ports, through gRPC's own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

from app.client.canary import Canary
from app.client.endpoint import Endpoint
from app.client.templates import TIMEOUT_S, TemplateClient
from app.proto.template.v1 import template_pb2 as pb
from app.proto.template.v1.template_pb2_grpc import TemplateServiceServicer, add_TemplateServiceServicer_to_server
from tests.client.line import Line

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any, Context], Awaitable[Any]]


async def _default(request: Any, context: Context) -> Any:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no test asked for this")


@dataclass
class FakeService(TemplateServiceServicer):
    """`answers` are taken in turn by the calls that come, of whatever method; the last one stays."""

    name: str = "fake"
    answers: list[Answer] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    time_remaining: list[float | None] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    calls: int = 0
    port: int = 0

    async def _answer(self, request: Any, context: Context) -> Any:
        self.calls += 1
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.time_remaining.append(context.time_remaining())
        self.peers.add(context.peer())
        answer = self.answers[0] if self.answers else _default
        if len(self.answers) > 1:
            self.answers.pop(0)
        return await answer(request, context)

    async def GetTemplateDetails(self, request: Any, context: Context) -> Any:  # noqa: N802
        return await self._answer(request, context)

    async def CreateTemplate(self, request: Any, context: Context) -> Any:  # noqa: N802
        return await self._answer(request, context)

    async def UpdateTemplate(self, request: Any, context: Context) -> Any:  # noqa: N802
        return await self._answer(request, context)

    async def DeleteTemplate(self, request: Any, context: Context) -> Any:  # noqa: N802
        return await self._answer(request, context)

    async def WatchTemplates(self, request: Any, context: Context) -> None:  # noqa: N802
        await self._answer(request, context)

    async def SyncTemplates(self, requests: AsyncIterator[Any], context: Context) -> None:  # noqa: N802
        await self._answer(requests, context)

    async def ImportTemplates(self, requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: N802
        return await self._answer(requests, context)


def details(template_id: int = 1, body: str = "Dear {{name}}", **fields: Any) -> pb.GetTemplateDetailsResponse:
    template = pb.Template(id=template_id, name="welcome", body=body, version=3)
    template.updated_at.FromJsonString("2026-11-21T03:04:05.678901Z")
    return pb.GetTemplateDetailsResponse(template=template, **fields)


def giving(message: Any) -> Answer:
    async def answer(request: Any, context: Context) -> Any:
        return message

    return answer


def details_asked_for(body: str = "") -> Answer:
    async def answer(request: Any, context: Context) -> Any:
        return details(request.id, body)

    return answer


def failing(status: grpc.StatusCode, text: str = "", trailing: tuple[tuple[str, bytes], ...] = ()) -> Answer:
    async def answer(request: Any, context: Context) -> Any:
        await context.abort(status, text, trailing)

    return answer


def held(until: asyncio.Event, then: Answer) -> Answer:
    async def answer(request: Any, context: Context) -> Any:
        await until.wait()
        return await then(request, context)

    return answer


def state(template_id: int, version: int, *, gone: bool = False, skipped: int = 0) -> pb.WatchTemplatesResponse:
    told = pb.TemplateState(id=template_id, version=version)
    if not gone:
        told.template.CopyFrom(pb.Template(id=template_id, name="n", body="b", version=version))
    return pb.WatchTemplatesResponse(state=told, versions_skipped=skipped)


def telling(*states: pb.WatchTemplatesResponse, then: grpc.StatusCode | None = None) -> Answer:
    """Tells these, then ends with `then`; with OK, or, for `None`, not at all."""

    async def answer(request: Any, context: Context) -> None:
        for each in states:
            await context.write(each)
        if then is None:
            await asyncio.Event().wait()
        elif then is not grpc.StatusCode.OK:
            await context.abort(then, "about to stop: watch again")

    return answer


@asynccontextmanager
async def serving(
    service: FakeService,
    address: str = "127.0.0.1:0",
    *options: tuple[str, int],
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[FakeService]:
    """It listens, at `service.port`, until it is cut off."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *options))
    add_TemplateServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    if credentials is None:
        service.port = server.add_insecure_port(address)
    else:
        service.port = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield service
    finally:
        await server.stop(None)


def to(
    service: FakeService | Line, *, timeout_s: float = TIMEOUT_S, canary: Canary | None = None, **spoken: Any
) -> TemplateClient:
    """A client of a service that listens on loopback; `spoken` is how, as in `Endpoint`."""
    return TemplateClient(Endpoint(f"127.0.0.1:{service.port}", **spoken), timeout_s=timeout_s, canary=canary)
