"""The fake app's templates over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc

from app.loadtest.target import Target
from app.proto.template.v1 import template_pb2 as pb
from tests.client.fake_service import Context, FakeService, serving
from tests.loadtest.fake_app import FakeApp


@asynccontextmanager
async def over_grpc(app: FakeApp) -> AsyncIterator[tuple[Target, FakeService]]:
    """A target that reads over gRPC from what `app` holds, with its faults, and the service that answers there."""

    async def answer(request: pb.GetTemplateDetailsRequest, context: Context) -> Any:
        app.requests += 1
        number = app.requests
        await app._meet()
        source = f"SOURCE_{(await app._source(request.id)).upper()}"
        match app._faults.get(number):
            case "refuse":
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
            case "unavailable":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            case "wrong body":
                return pb.GetTemplateDetailsResponse(template=pb.Template(id=request.id + 1), source=source)
            case "no source":
                return pb.GetTemplateDetailsResponse(template=pb.Template(id=request.id))
            case "hang":
                await asyncio.Event().wait()
        return pb.GetTemplateDetailsResponse(template=pb.Template(id=request.id), source=source)

    async with serving(FakeService(answers=[answer])) as service:
        yield replace(app.target, grpc_target=f"127.0.0.1:{service.port}"), service
