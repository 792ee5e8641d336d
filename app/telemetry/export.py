"""Traces on their way out, over OTLP. Imported only where they are wanted: it brings the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Literal

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace import sampling as samplers
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from app.telemetry.tracing import TracingError

End = Literal["exported", "failed", "dropped"]

MAX_WAITING = 2048
"""Spans that wait to be sent; those that end while as many wait are dropped."""
MAX_BATCH = 512
MAX_ATTRIBUTE = 2048
"""Characters of one attribute."""
LAST_WORDS_S = 0.5
"""How long an export that is cut short may take to end."""
DEFAULT_SERVICE_NAME = "template-service"

_log = logging.getLogger(__name__)
_EXPORTER_LOGS = (
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter"),
    logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter"),
)


class Export:
    """Spans made by `tracer` are sent in batches, by a thread of this object's own.

    Nobody waits for it: what it can't keep up with, or can't deliver, is counted by `count` and lost. An outage of the
    receiver is logged once, and so is its end.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        protocol: Literal["grpc", "http/protobuf"],
        sampler: str,
        ratio: float,
        service_name: str,
        version: str,
        count: Callable[[End, int], None],
    ) -> None:
        """`endpoint` is a URL, over HTTP with its path; `sampler` one of OTEL_TRACES_SAMPLER's names.

        Raises `TracingError` where the SDK can't use one of its own variables.
        """
        try:
            exporter = (GrpcExporter if protocol == "grpc" else HttpExporter)(endpoint=endpoint)
            self._exporter = _Counting(exporter, endpoint, count)
            self._provider = TracerProvider(
                sampler=_sampler(sampler, ratio),
                resource=_resource(service_name, version),
                shutdown_on_exit=False,
                span_limits=SpanLimits(max_span_attribute_length=MAX_ATTRIBUTE, max_attribute_length=MAX_ATTRIBUTE),
            )
            self._provider.add_span_processor(_Queue(self._exporter, count))
        except Exception as error:  # the SDK raises various kinds for what is wrong with its variables
            raise TracingError(f"traces can't be exported as the OTEL_ variables ask: {error}") from error
        self.tracer: Tracer = self._provider.get_tracer("app", version)

    async def aclose(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s` seconds, and end."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                loop.call_soon_threadsafe(ended.set)

        # A daemon, unlike the loop's own threads: a receiver that hangs must not hold up the end of the process.
        threading.Thread(target=end, name="traces-end", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), timeout_s)
            return
        _log.warning("traces were not all sent within %g s; the rest are lost", timeout_s)
        self._exporter.cut_short()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), LAST_WORDS_S)


class _Queue(BatchSpanProcessor):
    """The SDK's queue, which drops what does not fit without logging each span, and counts it."""

    def __init__(self, exporter: _Counting, count: Callable[[End, int], None]) -> None:
        super().__init__(exporter, max_queue_size=MAX_WAITING, max_export_batch_size=MAX_BATCH)
        self._taken_by = exporter
        self._count = count
        self._queued = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._queued - self._taken_by.taken >= MAX_WAITING:
            self._count("dropped", 1)
            return
        self._queued += 1
        super().on_end(span)


class _Counting(SpanExporter):
    """`exporter`, whose failures are counted, and told once an outage."""

    def __init__(self, exporter: GrpcExporter | HttpExporter, endpoint: str, count: Callable[[End, int], None]) -> None:
        self.taken = 0
        self._exporter = exporter
        self._endpoint = endpoint
        self._count = count
        self._is_failing = False
        self._reason = _LastWord()
        for log in _EXPORTER_LOGS:
            log.addFilter(self._reason)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever it is, serving goes on without traces
            self._reason.text = f"{type(error).__name__}: {error}"
            result = SpanExportResult.FAILURE
        done = result is SpanExportResult.SUCCESS
        self._count("exported" if done else "failed", len(spans))
        if not done and not self._is_failing:
            _log.warning(
                "traces can't be sent to %s, and are lost until it takes them: %s", self._endpoint, self._reason
            )
        if done and self._is_failing:
            _log.warning("traces are sent to %s again", self._endpoint)
        self._is_failing = not done
        return result

    def shutdown(self) -> None:
        self.cut_short()
        for log in _EXPORTER_LOGS:
            log.removeFilter(self._reason)

    def cut_short(self) -> None:
        """End an export that is under way; those after it fail, untold. May be called by another thread, and again."""
        self._is_failing = True
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _LastWord(logging.Filter):
    """Keeps what the exporter has to say, try after try, out of the log, and the last of it at hand."""

    text = "no reason was given"

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage()
        return False

    def __str__(self) -> str:
        return self.text


def _sampler(name: str, ratio: float) -> samplers.Sampler:
    of_roots: samplers.Sampler
    match name.removeprefix("parentbased_"):
        case "always_on":
            of_roots = samplers.ALWAYS_ON
        case "always_off":
            of_roots = samplers.ALWAYS_OFF
        case "traceidratio":
            of_roots = samplers.TraceIdRatioBased(ratio)
        case _:
            raise ValueError(f"OTEL_TRACES_SAMPLER: {name!r} is no sampler")
    return samplers.ParentBased(of_roots) if name.startswith("parentbased_") else of_roots


def _resource(service_name: str, version: str) -> Resource:
    own = {"service.version": version, "service.instance.id": uuid.uuid4().hex}
    resource = Resource.create(own | ({SERVICE_NAME: service_name} if service_name else {}))
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: DEFAULT_SERVICE_NAME}))
    return resource
