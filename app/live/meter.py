"""What the counters of this process show, for those who compare two moments."""

from __future__ import annotations

from typing import NamedTuple

from app.telemetry.metrics import Metrics


class Totals(NamedTuple):
    """Counts since the process began, but for `in_flight`, which is of the moment.

    `answers` are reads by source. `latencies` has a count for each bucket of `app.telemetry.metrics.SECONDS`.
    """

    requests: int
    loads: int
    least_loads: int
    answers: dict[str, int]
    in_flight: int
    latencies: tuple[int, ...]


class Meter:
    """Reads the counters of requests for templates, and of the cache behind them.

    `routes` are the HTTP routes that count and `methods` the gRPC methods: neither probes, nor the live page's own, nor
    streams, which last as long as their client likes.
    """

    def __init__(self, metrics: Metrics, *, routes: frozenset[str], methods: frozenset[str]) -> None:
        self._metrics = metrics
        self._routes = routes
        self._methods = methods

    def read(self) -> Totals:
        """The counts of now."""
        metrics = self._metrics
        requests, latencies = metrics.traffic(self._routes, self._methods)
        loads, least_loads = metrics.loads()
        calls = metrics.calls
        return Totals(
            requests,
            loads,
            least_loads,
            metrics.answers(),
            metrics.in_flight.value + calls.in_flight.value - calls.streaming.value,
            latencies,
        )
