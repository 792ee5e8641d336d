"""Spans, by OpenTelemetry's API alone: what is sent where is `app.telemetry.export`'s part.

What a span carries is bounded in size and fit for a third party: names of routes, methods and keys, the text of
statements. No value that is stored or sent, and no exception's text, which may quote one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

MAX_TRACESTATE = 1024
"""Characters of a `tracestate` that is passed on; W3C Trace Context asks for 512 at least."""

_propagator = TraceContextTextMapPropagator()


class TracingError(Exception):
    """Traces can't be exported as the environment asks; the message says why."""


def is_traced() -> bool:
    """Whether the running code belongs to a trace that is recorded. Its span may have ended: work goes on behind it."""
    return bool(trace.get_current_span().get_span_context().trace_flags.sampled)


def trace_id() -> str | None:
    """The trace that the running code belongs to, recorded or not, as 32 hexadecimal digits."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


@contextmanager
def span(
    tracer: Tracer,
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, AttributeValue] | None = None,
    parent: Context | None = None,
    answers: tuple[type[BaseException], ...] = (),
) -> Iterator[Span]:
    """A span around the body, current in it. One that the body leaves by an exception is an error of that type.

    Those of `answers` are none: they are how a driver tells that something else is to be done.
    """
    with tracer.start_as_current_span(
        name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as started:
        try:
            yield started
        except answers:
            raise
        except BaseException as error:
            failed(started, type(error).__name__)
            raise


def failed(ended: Span, kind: str) -> None:
    """The span's work failed; `kind` is one of few, such as an exception's class or a status."""
    ended.set_attribute("error.type", kind)
    ended.set_status(StatusCode.ERROR)


def incoming(headers: Iterable[tuple[bytes | str, bytes | str]]) -> Context:
    """The caller's trace, by the W3C headers among those of a request, whose names are in lower case.

    One that is malformed, or comes twice, counts as absent: the request begins a trace of its own then.
    """
    parents: list[str] = []
    states: list[str] = []
    for name, value in headers:
        if name in (b"traceparent", "traceparent"):
            parents.append(_text(value))
        elif name in (b"tracestate", "tracestate"):
            states.append(_text(value))
    if len(parents) != 1:
        return Context()
    carrier = {"traceparent": parents[0]}
    state = ",".join(states)
    if 0 < len(state) <= MAX_TRACESTATE:
        carrier["tracestate"] = state
    return _propagator.extract(carrier, Context())


def outgoing() -> tuple[tuple[str, str], ...]:
    """What a call made by the running code carries, as headers or metadata, so that its callee continues the trace.

    Empty outside a trace.
    """
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return tuple(carrier.items())


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
