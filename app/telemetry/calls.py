"""The metrics of gRPC calls."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from app.telemetry.plain import Count, Distribution, PlainCounter, PlainGauge, PlainHistogram

EXPECTED_STATUSES = ("OK", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNKNOWN")
"""Those whose series exist from the start: a series that begins above zero shows no rise."""
STREAM_KINDS = ("server_streaming", "client_streaming", "bidi_streaming")
REFUSALS = ("unauthenticated", "rate_limited", "invalid_metadata", "malformed_message", "unknown_method")


class MethodMetrics:
    """Where the calls of one method are counted, without looking anything up but the status."""

    __slots__ = ("_by_status", "_calls", "_name", "received", "seconds", "sent")

    def __init__(self, name: str, calls: PlainCounter, seconds: Distribution, received: Count, sent: Count) -> None:
        self._name = name
        self._calls = calls
        self._by_status = {status: calls.child(name, status) for status in EXPECTED_STATUSES}
        self.seconds = seconds
        self.received = received
        self.sent = sent

    def ended(self, status: str) -> Count:
        """The calls that ended with this status; `status` is the name of one of gRPC's own."""
        count = self._by_status.get(status)
        if count is None:
            count = self._by_status[status] = self._calls.child(self._name, status)
        return count


class CallMetrics:
    """What is known of gRPC calls, by method; methods are few and fixed."""

    def __init__(self, registry: CollectorRegistry, *, bounds: Sequence[float]) -> None:
        self.requests = PlainCounter(
            "grpc_requests", "gRPC calls ended, by method and status.", ["method", "status"], registry=registry
        )
        self.request_seconds = PlainHistogram(
            "grpc_request_duration_seconds",
            "Time from a gRPC call's beginning to its end, streams included.",
            ["method"],
            bounds=bounds,
            registry=registry,
        )
        self.in_flight_requests = PlainGauge(
            "grpc_in_flight_requests", "gRPC calls being answered now, streams included.", registry=registry
        )
        self.open_streams = Gauge(
            "grpc_open_streams", "gRPC calls under way that stream, by kind.", ["kind"], registry=registry
        )
        self.messages = PlainCounter(
            "grpc_messages",
            "Messages of gRPC calls, by method and direction: `received` from clients, `sent` to them.",
            ["method", "direction"],
            registry=registry,
        )
        self.refusals = PlainCounter(
            "grpc_refusals", "gRPC calls refused before the service was asked, by why.", ["why"], registry=registry
        )
        self.in_flight = self.in_flight_requests.count
        self.streaming = Count()
        """Those of them that stream, of all kinds."""
        for why in REFUSALS:
            self.refusals.child(why)
        for kind in STREAM_KINDS:
            self.open_streams.labels(kind)

    def refused(self, why: str) -> None:
        """A call was refused before the service was asked; `why` is one of few."""
        self.refusals.child(why).value += 1

    def method(self, name: str) -> MethodMetrics:
        """The series of one method, which exist from now on."""
        return MethodMetrics(
            name,
            self.requests,
            self.request_seconds.child(name),
            self.messages.child(name, "received"),
            self.messages.child(name, "sent"),
        )
