"""A receiver of OTLP traces: the protocol's own service, over gRPC and over HTTP, on real ports."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Received:
    """A span as it came."""

    proto: Span
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        return self.proto.name

    @property
    def kind(self) -> str:
        return Span.SpanKind.Name(self.proto.kind).removeprefix("SPAN_KIND_").lower()

    @property
    def trace_id(self) -> str:
        return self.proto.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.proto.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.proto.parent_span_id.hex()

    @property
    def failed(self) -> bool:
        return self.proto.status.code == Status.STATUS_CODE_ERROR

    @property
    def attributes(self) -> dict[str, Any]:
        return _plain(self.proto.attributes)

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(event.name, _plain(event.attributes)) for event in self.proto.events]

    @property
    def links(self) -> list[tuple[str, str]]:
        return [(link.trace_id.hex(), link.span_id.hex()) for link in self.proto.links]


@dataclass
class Collector:
    """What has been received until now. `refusing` makes it answer with UNAVAILABLE, or 503."""

    grpc_url: str = ""
    http_url: str = ""
    refusing: bool = False
    spans: list[Received] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the last export."""

    def take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> bool:
        self.headers = headers
        if self.refusing:
            return False
        for resource in request.resource_spans:
            about = _plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [Received(span, about) for span in scope.spans]
        return True

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def trace(self, trace_id: str) -> list[Received]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def tree(self, trace_id: str) -> list[str]:
        """The trace's spans by their start, each behind a dot for each span above it."""
        spans = {span.span_id: span for span in self.trace(trace_id)}

        def depth(span: Received) -> int:
            return 1 + depth(spans[span.parent_id]) if span.parent_id in spans else 0

        ordered = sorted(spans.values(), key=lambda span: span.proto.start_time_unix_nano)
        return ["." * depth(span) + span.name for span in ordered]

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for what is on its way. Raises `TimeoutError`."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - what it waits for comes from another thread
                await asyncio.sleep(0.01)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A receiver that runs."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(_Servicer(collector), server)  # type: ignore[no-untyped-call]
    collector.grpc_url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    web = ThreadingHTTPServer(("127.0.0.1", 0), _handler(collector))
    collector.http_url = f"http://127.0.0.1:{web.server_port}"
    serving = threading.Thread(target=web.serve_forever, args=(0.05,))
    serving.start()
    server.start()
    try:
        yield collector
    finally:
        web.shutdown()
        web.server_close()
        serving.join()
        server.stop(0).wait()


class _Servicer(TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(  # noqa: N802 (the name is the proto's)
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        metadata: Any = context.invocation_metadata()
        if not self._collector.take(request, dict(metadata)):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return ExportTraceServiceResponse()


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            taken = known and collector.take(ExportTraceServiceRequest.FromString(body), dict(self.headers))
            self.send_response(200 if taken else 503 if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None: ...

    return Handler


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each) for each in attributes}


def _value(attribute: KeyValue) -> Any:
    return getattr(attribute.value, attribute.value.WhichOneof("value") or "string_value")
