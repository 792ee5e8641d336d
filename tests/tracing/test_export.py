"""Traces on their way out: bounded, and nobody's business but their own where they can't be delivered."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from app.embedded.replica import Replica
from app.telemetry import export
from app.telemetry.export import MAX_WAITING, Export
from app.telemetry.tracing import TracingError
from tests.tracing.collector import Collector
from tests.tracing.conftest import Start


class Counted(Counter[str]):
    def add(self, end: str, count: int) -> None:
        self[end] += count


def make(endpoint: str, counted: Counted, protocol: Literal["grpc", "http/protobuf"] = "grpc") -> Export:
    return Export(
        endpoint=endpoint,
        protocol=protocol,
        sampler="always_on",
        ratio=1.0,
        service_name="",
        version="1.2.3",
        count=counted.add,
    )


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Where connections are taken, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield int(listener.getsockname()[1])


async def test_without_an_endpoint_neither_the_sdks_tracing_nor_an_exporter_is_imported(
    database_url: str, redis_url: str
) -> None:
    program = f"""
import asyncio, sys
from app.bootstrap.runtime import running
from app.settings import Settings
from app.tracing_settings import TracingSettings
async def main():
    settings = Settings(database_url={database_url!r}, redis_url={redis_url!r}, database_migrate=False)
    async with running(settings, TracingSettings()) as runtime:
        await runtime.service.read(1)
asyncio.run(main())
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))])
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=100
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


async def test_an_outage_of_the_receiver_fails_no_request_is_counted_and_is_told_once(
    start: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5")
    collector.refusing = True
    service = await start()

    async def exports(end: str) -> int:
        text = (await service.http.get("/metrics")).text
        return int(float(text.partition(f'tracing_spans_total{{end="{end}"}} ')[2].partition("\n")[0]))

    async def more(end: str) -> None:
        before = await exports(end)
        async with asyncio.timeout(20):
            while await exports(end) == before:
                assert (await service.http.get("/template-details?id=1")).status_code == 200

    for _ in range(3):
        await more("failed")
    assert await exports("exported") == 0
    collector.refusing = False
    for _ in range(3):
        await more("exported")
    told = [record.getMessage() for record in caplog.records if "trace" in record.getMessage()]
    assert len(told) == 2, told
    assert "UNAVAILABLE" in told[0]
    assert told[0].startswith(f"traces can't be sent to {collector.grpc_url}")
    assert "again" in told[1]


async def test_what_the_receiver_can_not_keep_up_with_is_dropped_and_counted() -> None:
    taken, goes_on = threading.Event(), threading.Event()
    counted = Counted()

    class Slow:
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            taken.set()
            assert goes_on.wait(20)
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None: ...

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    exported = make("http://127.0.0.1:1", counted)
    exported._exporter._exporter = Slow()  # type: ignore[assignment]
    for _ in range(export.MAX_BATCH):
        exported.tracer.start_span("first").end()
    assert await asyncio.to_thread(taken.wait, 20)
    for _ in range(MAX_WAITING + 100):
        exported.tracer.start_span("more").end()
    assert counted == {"dropped": 100}
    goes_on.set()
    await exported.aclose(20.0)
    assert counted == {"dropped": 100, "exported": export.MAX_BATCH + MAX_WAITING}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_receiver_that_hangs_holds_up_the_end_no_longer_than_allowed(
    silent_port: int, protocol: Literal["grpc", "http/protobuf"], caplog: pytest.LogCaptureFixture
) -> None:
    exported = make(f"http://127.0.0.1:{silent_port}/v1/traces", Counted(), protocol)
    exported.tracer.start_span("lost").end()
    began = time.monotonic()
    await exported.aclose(0.2)
    assert time.monotonic() - began < 5  # of the 10 s that an export may take
    assert "traces were not all sent within 0.2 s" in caplog.text
    if protocol == "grpc":  # a request over HTTP can't be called off
        async with asyncio.timeout(5):
            while any(thread.name == "traces-end" for thread in threading.enumerate()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_what_waits_is_sent_at_the_end_with_the_headers_of_the_environment(
    collector: Collector, protocol: Literal["grpc", "http/protobuf"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    url = collector.grpc_url if protocol == "grpc" else f"{collector.http_url}/v1/traces"
    counted = Counted()
    exported = make(url, counted, protocol)
    exported.tracer.start_span("last").end()
    await exported.aclose(20.0)
    assert [span.name for span in collector.spans] == ["last"]
    assert collector.headers["x-tenant"] == "blue"
    exported.tracer.start_span("too late").end()
    assert counted["exported"] == 1


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "rar")]
)
async def test_a_variable_that_the_sdk_can_not_use_is_told_in_one_line(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TracingError, match=f"OTEL_ variables.*{value}"):
        make("http://127.0.0.1:1", Counted())


@pytest.mark.parametrize("hangs", [False, True], ids=["receiver-up", "receiver-hangs"])
async def test_a_process_that_is_told_to_end_sends_what_waits_and_ends_in_time(
    collector: Collector, database_url: str, redis_url: str, tmp_path: Path, silent_port: int, hangs: bool
) -> None:
    environment = {
        "APP_DATABASE_URL": database_url,
        "APP_REDIS_URL": redis_url,
        "APP_DRAIN_DELAY_S": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent_port}" if hangs else collector.grpc_url,
        "OTEL_BSP_SCHEDULE_DELAY": "60000",  # nothing is sent until the end
        "OTEL_SERVICE_NAME": "by-environment",
    }
    log = tmp_path / "log"
    replica = Replica(environment, log=log)
    await asyncio.to_thread(replica.start)
    try:
        async with httpx.AsyncClient(base_url=replica.http_url) as client:
            assert (await client.get("/template-details?id=1")).status_code == 200
        assert not collector.spans
        await asyncio.to_thread(replica.stop)
    finally:
        replica.kill()
    if hangs:
        assert "traces were not all sent" in log.read_text()
    else:
        assert {"GET /template-details", "load"} <= {span.name for span in collector.spans}
        assert {span.resource["service.name"] for span in collector.spans} == {"by-environment"}
    assert "Traceback" not in log.read_text(), log.read_text()
