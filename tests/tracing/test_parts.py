"""Which parts make spans, and of what beside reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from app.api.http.edge import Edge
from app.bootstrap.runtime import running
from app.proto.template.v1.template_pb2 import ImportTemplatesRequest, NewTemplate, WatchTemplatesRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from app.settings import Settings
from app.storage.postgres import Session
from app.telemetry.metrics import Metrics
from app.tracing_settings import TracingSettings
from tests.tracing.collector import Collector
from tests.tracing.conftest import Start, metadata, trace_of

SERVICE = "template.v1.TemplateService"


async def test_without_an_endpoint_every_part_is_the_plain_one(database_url: str, redis_url: str) -> None:
    settings = Settings.model_validate({"database_url": database_url, "redis_url": redis_url})
    for tracing in (None, TracingSettings()):  # type: ignore[call-arg]
        async with running(settings, tracing) as runtime:
            service: Any = runtime.service
            loader = service._cache._loader
            pool = service._repository._database._pool
            assert type(runtime.http_app) is Edge
            assert type(runtime.metrics) is Metrics
            assert type(loader._protection._protection).__name__ == "Singleflight"
            assert type(loader._remote._client) is Redis
            assert pool._connection_class is Session


async def test_the_framework_makes_no_spans_of_its_own_where_others_in_the_process_are_traced(
    start: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(others))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    service = await start()
    assert (await service.http.get("/templates")).status_code == 200
    await collector.until(lambda: collector.named("GET /templates"))
    assert others.get_finished_spans() == ()


async def test_an_import_is_a_span_of_its_copy_and_none_of_its_rows(start: Start, collector: Collector) -> None:
    service = await start()

    async def batches() -> AsyncIterator[ImportTemplatesRequest]:
        for number in range(3):
            yield ImportTemplatesRequest(templates=[NewTemplate(name=f"secret {number}", body="secret")])

    stub = TemplateServiceStub(service.grpc)  # type: ignore[no-untyped-call]
    await stub.ImportTemplates(batches(), metadata=metadata(60), timeout=20)
    await collector.until(lambda: collector.named(f"{SERVICE}/ImportTemplates"))
    names = [span.name for span in collector.trace(trace_of(60))]
    assert names[0] != names[-1] == f"{SERVICE}/ImportTemplates"
    copies = [span for span in collector.trace(trace_of(60)) if span.name == "COPY"]
    assert {span.attributes["db.query.text"] for span in copies} == {"COPY templates FROM STDIN"}
    assert {"BEGIN", "COPY", "COMMIT"} <= set(names)
    for span in collector.spans:
        assert b"secret" not in span.proto.SerializeToString(), span


async def test_a_stream_is_one_span_and_what_is_read_for_all_watchers_is_nobodys(
    start: Start, collector: Collector, database_url: str
) -> None:
    service = await start()
    stub = TemplateServiceStub(service.grpc)  # type: ignore[no-untyped-call]
    watch = stub.WatchTemplates(WatchTemplatesRequest(ids=[70]), metadata=metadata(61))
    first = await watch.read()
    writer = await asyncpg.connect(database_url)
    try:
        await writer.execute("UPDATE templates SET name = 'newer' WHERE id = 70")
    finally:
        await writer.close(timeout=2.0)
    async with asyncio.timeout(20):
        assert (await watch.read()).state.version == first.state.version + 1
    watch.cancel()
    await collector.until(lambda: collector.named(f"{SERVICE}/WatchTemplates"))
    (only,) = collector.spans
    assert (only.trace_id, only.failed) == (trace_of(61), False)
    assert only.attributes["rpc.response.status_code"] == "CANCELLED"
