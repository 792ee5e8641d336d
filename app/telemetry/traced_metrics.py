"""What is counted on the read path, told to the running span as well."""

from __future__ import annotations

from typing import Literal

from opentelemetry import trace

from app.telemetry.metrics import Metrics


class TracedMetrics(Metrics):
    """`Metrics`, of which a request's span says where its answer came from, and what happened on the way."""

    def answered(self, source: Literal["l1", "l2", "origin", "shared", "stale"]) -> None:
        super().answered(source)
        running = trace.get_current_span()
        if running.is_recording():  # work may go on behind a span that has ended
            running.set_attribute("cache.source", source)

    def failed(self, operation: Literal["get", "take", "put", "release", "invalidate", "decode"]) -> None:
        super().failed(operation)
        _tell("cache.failed", "operation", operation)

    def stale(self, cause: Literal["grace", "error", "slow"]) -> None:
        super().stale(cause)
        _tell("cache.stale", "cause", cause)

    def lease(self, end: Literal["won", "waited", "taken_over", "fenced"]) -> None:
        super().lease(end)
        _tell("cache.lease", "end", end)

    def refused(self, why: Literal["full", "timeout"]) -> None:
        super().refused(why)
        _tell("bulkhead.refused", "why", why)


def _tell(event: str, name: str, value: str) -> None:
    running = trace.get_current_span()
    if running.is_recording():
        running.add_event(event, {name: value})
