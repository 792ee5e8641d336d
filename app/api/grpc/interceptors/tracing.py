"""A span for each call."""

from __future__ import annotations

from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from app.api.grpc.call import Behaviour, Call, Method
from app.telemetry.tracing import failed, incoming, span

SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The statuses that are errors of the server, by the semantic conventions for RPC; others are the caller's own."""


class Tracing:
    """A server span around each call, in its caller's trace if it has one. A stream's lasts as long as the stream.

    Health and reflection have none: they are asked by machines, every few seconds.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        if method.service.startswith("grpc."):
            return behaviour
        attributes: dict[str, AttributeValue] = {"rpc.system.name": "grpc", "rpc.method": method.name}
        tracer = self._tracer

        async def traced(call: Call) -> bytes | None:
            parent = incoming(call.metadata)
            # Whatever ends it, the status says whether that is an error.
            with span(tracer, method.name, SpanKind.SERVER, attributes, parent, answers=(BaseException,)) as own:
                try:
                    return await behaviour(call)
                finally:
                    own.set_attribute("rpc.response.status_code", call.status)
                    if call.status in SERVER_FAULTS:
                        failed(own, call.status)

        return traced
