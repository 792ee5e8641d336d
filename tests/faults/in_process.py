"""The whole service in the test's own event loop, so that a test can see what it leaves there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from app.bootstrap.runtime import Runtime, running
from app.settings import Settings


@dataclass(frozen=True)
class Served:
    """It listens on loopback."""

    runtime: Runtime
    http_port: int
    grpc_port: int

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are pytest's


@asynccontextmanager
async def served(database_url: str, redis_url: str, **settings: Any) -> AsyncIterator[Served]:
    """The service with these settings, without signals; what is in flight at the end has 2 s.

    `tracing` among them are `TracingSettings`: without, no traces are made.
    """
    tracing = settings.pop("tracing", None)
    wanted = {"database_url": database_url, "redis_url": redis_url, "database_migrate": False, "grpc_port": 0}
    service = running(Settings.model_validate({**wanted, "drain_timeout_s": 2, **settings}), tracing)
    async with service as runtime:
        grpc_port = await runtime.grpc.start()
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        config = uvicorn.Config(
            runtime.http_app, http="httptools", ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=2
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield Served(runtime, listener.getsockname()[1], grpc_port)
        finally:
            server.should_exit = True
            await asyncio.gather(serving, runtime.grpc.drain(2))
            listener.close()
