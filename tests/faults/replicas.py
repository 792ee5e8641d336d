"""Two replicas of the service in the test's own event loop, over one database and one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.faults.in_process import Served, served
from tests.faults.polling import until


@dataclass(frozen=True)
class Replica:
    """`stub` is a client's."""

    app: Served
    channel: grpc.aio.Channel
    stub: Any

    @property
    def http_url(self) -> str:
        return self.app.http_url


@asynccontextmanager
async def replicas(
    database_url: str, redis_url: str, count: int = 2, **settings: object
) -> AsyncIterator[list[Replica]]:
    """They are left with no task that they did not have at their start."""
    async with AsyncExitStack() as opened:
        made = []
        for _ in range(count):
            app = await opened.enter_async_context(served(database_url, redis_url, **settings))
            channel = await opened.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{app.grpc_port}"))
            made.append(Replica(app, channel, TemplateServiceStub(channel)))  # type: ignore[no-untyped-call]
        at_start = asyncio.all_tasks()
        yield made

        def left() -> list[asyncio.Task[object]]:
            # gRPC waits for the next call in a task, a new one after each call; a fixture ends in a task of its own.
            found = asyncio.all_tasks() - at_start - {asyncio.current_task()}
            return [task for task in found if "AioServer._request_" not in repr(task)]

        await until(lambda: not left(), "no task is left", 5.0)


@dataclass(frozen=True)
class Failure:
    """How a call ended that did not end well."""

    code: grpc.StatusCode
    text: str
    reason: str
    fields: tuple[str, ...]
    """Of the violations that its details have."""


def failure(error: grpc.aio.AioRpcError) -> Failure:
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    details = Status.FromString(raw if isinstance(raw, bytes) else raw.encode()).details
    info, bad = ErrorInfo(), BadRequest()
    for detail in details:
        unpack(detail, info)
        unpack(detail, bad)
    fields = tuple(violation.field for violation in bad.field_violations)
    return Failure(error.code(), error.details() or "", info.reason, fields)


def unpack(detail: Packed, message: ErrorInfo | BadRequest) -> None:
    if detail.Is(message.DESCRIPTOR):
        detail.Unpack(message)
