"""Calls, counted and timed."""

from __future__ import annotations

import time

from app.api.grpc.call import Behaviour, Call, Method, Tally
from app.telemetry.calls import CallMetrics


class Measures:
    """Counts every call by method and status, its messages, and how long it took."""

    def __init__(self, metrics: CallMetrics) -> None:
        self._metrics = metrics

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        series = self._metrics.method(method.name)
        in_flight = self._metrics.in_flight
        tally = Tally(series.received, series.sent)

        async def measured(call: Call) -> bytes | None:
            begun = time.perf_counter()
            in_flight.value += 1
            call.tally = tally
            try:
                return await behaviour(call)
            finally:
                in_flight.value -= 1
                series.ended(call.status).value += 1
                series.seconds.observe(time.perf_counter() - begun)

        return measured
