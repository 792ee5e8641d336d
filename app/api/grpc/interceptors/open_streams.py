"""How many streams are open."""

from __future__ import annotations

from app.api.grpc.call import UNKNOWN, Behaviour, Call, Kind, Method
from app.telemetry.calls import CallMetrics


class OpenStreams:
    """Counts the calls that stream and have not ended, by kind."""

    def __init__(self, metrics: CallMetrics) -> None:
        self._metrics = metrics

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        if method.kind is Kind.UNARY or method is UNKNOWN:
            return behaviour
        open_streams, streaming = self._metrics.open_streams.labels(method.kind.value), self._metrics.streaming

        async def counted(call: Call) -> bytes | None:
            open_streams.inc()
            streaming.value += 1
            try:
                return await behaviour(call)
            finally:
                open_streams.dec()
                streaming.value -= 1

        return counted
