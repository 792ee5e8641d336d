"""The methods of `template.v1.TemplateService`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import grpc

from app.api.grpc import convert
from app.api.grpc.hits import Hits
from app.api.grpc.sync import Conversation
from app.api.grpc.watch import watch_templates
from app.api.grpc.writes import TemplateWriter, TemplateWrites
from app.domain.ports import Reading
from app.proto.template.v1.template_pb2 import (
    GetTemplateDetailsRequest,
    GetTemplateDetailsResponse,
    SyncTemplatesRequest,
    SyncTemplatesResponse,
    WatchTemplatesRequest,
    WatchTemplatesResponse,
)
from app.watching.watch import Watch


class TemplateReader(Protocol):
    """What the methods need of the service."""

    async def read(self, template_id: int) -> Reading:
        """As `app.service.TemplateService.read`."""
        ...

    async def state(self, template_id: int) -> Reading:
        """As `app.service.TemplateService.state`."""
        ...

    def watch(self, ready: asyncio.Event | None = None, *, fails_fast: bool = False) -> Watch:
        """As `app.service.TemplateService.watch`."""
        ...

    def end_watches(self) -> None:
        """As `app.service.TemplateService.end_watches`."""
        ...


class Templates(TemplateReader, TemplateWriter, Protocol):
    """All that the methods need of the service."""


class TemplateServicer(TemplateWrites):
    """Answers over the same service object as HTTP does. What a method raises, `Failures` makes a status of.

    grpc.aio cancels a method's coroutine when its caller goes away or its deadline passes, and so that caller, and it
    alone, leaves the flight that it waits on.
    """

    def __init__(self, service: Templates, hits: Hits | None = None) -> None:
        super().__init__(service)
        self._service = service
        self._hits = hits

    def close(self) -> None:
        """Streams that would go on for as long as their clients want end, and no new ones begin."""
        self._service.end_watches()

    async def GetTemplateDetails(  # noqa: N802 (the name is the proto's)
        self,
        request: GetTemplateDetailsRequest,
        context: grpc.aio.ServicerContext[GetTemplateDetailsRequest, GetTemplateDetailsResponse],  # noqa: ARG002
    ) -> GetTemplateDetailsResponse | bytes:
        ready = self._hits.answer(request.id) if self._hits is not None else None
        return ready or convert.details(await self._service.read(request.id))

    async def WatchTemplates(  # noqa: N802 (the name is the proto's)
        self,
        request: WatchTemplatesRequest,
        context: grpc.aio.ServicerContext[WatchTemplatesRequest, WatchTemplatesResponse],
    ) -> None:
        await watch_templates(self._service.watch(fails_fast=True), request, context)

    async def SyncTemplates(  # noqa: N802 (the name is the proto's)
        self,
        request_iterator: AsyncIterator[SyncTemplatesRequest],
        context: grpc.aio.ServicerContext[SyncTemplatesRequest, SyncTemplatesResponse],
    ) -> None:
        ready = asyncio.Event()
        await Conversation(self._service, self._service.watch(ready), ready, context).run(request_iterator)
