"""The methods of `template.v1.TemplateService`."""

from __future__ import annotations

from typing import Protocol

import grpc

from app.api.grpc import convert
from app.api.grpc.hits import Hits
from app.api.grpc.writes import TemplateWriter, TemplateWrites
from app.domain.ports import Reading
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest, GetTemplateDetailsResponse


class TemplateReader(Protocol):
    """What the methods need of the service."""

    async def read(self, template_id: int) -> Reading:
        """As `app.service.TemplateService.read`."""
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

    async def GetTemplateDetails(  # noqa: N802 (the name is the proto's)
        self,
        request: GetTemplateDetailsRequest,
        context: grpc.aio.ServicerContext[GetTemplateDetailsRequest, GetTemplateDetailsResponse],  # noqa: ARG002
    ) -> GetTemplateDetailsResponse | bytes:
        ready = self._hits.answer(request.id) if self._hits is not None else None
        return ready or convert.details(await self._service.read(request.id))
