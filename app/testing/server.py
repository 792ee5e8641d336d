"""The gRPC server, within the process that tests against it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry

from app.api.grpc.interceptors.stack import CallPolicy, interceptors
from app.api.grpc.options import ServerOptions
from app.api.grpc.server import GrpcServer
from app.api.grpc.servicer import Templates
from app.telemetry.calls import CallMetrics
from app.telemetry.metrics import SECONDS
from app.testing.templates import InMemoryTemplates

DRAIN_S = 1.0
"""How long calls that are still under way at the end may take."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """`channel` is open to it, in plain text; `target` is for channels and programs of one's own. `server` can be told
    to stop serving, and to drain."""

    target: str
    channel: grpc.aio.Channel
    server: GrpcServer


@asynccontextmanager
async def running_server(
    service: Templates | None = None, *, options: ServerOptions | None = None, policy: CallPolicy | None = None
) -> AsyncIterator[RunningServer]:
    """The server that is deployed, with its interceptors, health and reflection, on a free port of loopback.

    It is SERVING, in the caller's event loop, and drained at the end. `service` is what answers: `InMemoryTemplates`
    has one, and without any it is that of no templates; anything with the same methods will do.
    """
    none = InMemoryTemplates()
    calls = CallMetrics(CollectorRegistry(), bounds=SECONDS)
    server = GrpcServer(
        none.service() if service is None else service,
        "127.0.0.1",
        0,
        options=options,
        interceptors=interceptors(calls, policy),
    )
    target = f"127.0.0.1:{await server.start()}"
    try:
        server.set_serving(True)
        async with grpc.aio.insecure_channel(target) as channel:
            yield RunningServer(target, channel, server)
    finally:
        await server.drain(DRAIN_S)
        await none.aclose()
