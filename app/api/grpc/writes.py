"""The methods of `template.v1.TemplateService` that write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

import grpc

from app.api.grpc import convert, requests
from app.domain.ports import ImportBatch, ImportSummary
from app.domain.template import Template, TemplateDraft, TemplatePatch
from app.proto.template.v1 import template_pb2 as pb
from app.proto.template.v1.template_pb2_grpc import TemplateServiceServicer


class TemplateWriter(Protocol):
    """What the methods need of the service; each as in `app.service.TemplateService`."""

    async def create(self, draft: TemplateDraft, request_id: str | None = None) -> Template: ...

    async def update(
        self,
        template_id: int,
        patch: TemplatePatch,
        expected: frozenset[int] | None = None,
        request_id: str | None = None,
    ) -> Template: ...

    async def delete(
        self, template_id: int, expected: frozenset[int] | None = None, request_id: str | None = None
    ) -> int: ...

    async def import_all(self, batches: AsyncIterator[ImportBatch]) -> ImportSummary: ...


class TemplateWrites(TemplateServiceServicer):
    """A caller that goes away, or whose deadline passes, takes its write with it, unless that is committed already."""

    def __init__(self, writer: TemplateWriter) -> None:
        self._writer = writer

    async def CreateTemplate(  # noqa: N802 (the names are the proto's)
        self, request: pb.CreateTemplateRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CreateTemplateResponse:
        return pb.CreateTemplateResponse(
            template=convert.template(await self._writer.create(*requests.creation(request)))
        )

    async def UpdateTemplate(  # noqa: N802
        self, request: pb.UpdateTemplateRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.UpdateTemplateResponse:
        return pb.UpdateTemplateResponse(
            template=convert.template(await self._writer.update(*requests.update(request)))
        )

    async def DeleteTemplate(  # noqa: N802
        self, request: pb.DeleteTemplateRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DeleteTemplateResponse:
        return pb.DeleteTemplateResponse(version=await self._writer.delete(*requests.deletion(request)))

    async def ImportTemplates(  # noqa: N802
        self, stream: requests.RequestStream, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ImportTemplatesResponse:
        async with aclosing(requests.batches(stream)) as batches:
            return convert.summary(await self._writer.import_all(batches))
