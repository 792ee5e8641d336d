"""The whole service in the test's own loop, whose traces go to a real receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
import uvloop

from app.tracing_settings import TracingSettings
from tests.faults.in_process import Served, served
from tests.tracing.collector import Collector, collecting

Start = Callable[..., Awaitable["Traced"]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass(frozen=True)
class Traced:
    """Clients of `served`."""

    served: Served
    http: httpx.AsyncClient
    grpc: grpc.aio.Channel


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture
async def start(
    collector: Collector, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Start]:
    """Call it with settings for a service that sends its traces, at once, to the collector."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with AsyncExitStack() as services:

        async def make(tracing: TracingSettings | None = None, **settings: Any) -> Traced:
            sent = tracing or TracingSettings.model_validate({"exporter_otlp_endpoint": collector.grpc_url})
            wanted = {"database_url": database_url, "redis_url": redis_url, "redis_timeout_s": 5, **settings}
            running = await services.enter_async_context(served(tracing=sent, **wanted))
            http = await services.enter_async_context(httpx.AsyncClient(base_url=running.http_url, timeout=20))
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}")
            return Traced(running, http, await services.enter_async_context(channel))

        yield make


def trace_of(number: int) -> str:
    """The trace that `parent(number)` names."""
    return f"{number:032x}"


def parent(number: int) -> dict[str, str]:
    """The header of a caller whose trace, which is sampled, has this number."""
    return {"traceparent": f"00-{trace_of(number)}-00000000000000aa-01"}


def metadata(number: int) -> tuple[tuple[str, str], ...]:
    """The same, for a gRPC call."""
    return tuple(parent(number).items())
