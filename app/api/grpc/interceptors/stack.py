"""Which interceptors there are, and in which order."""

from __future__ import annotations

from app.api.grpc.call import Interceptor
from app.api.grpc.interceptors.access_log import AccessLog
from app.api.grpc.interceptors.budget import Budgets
from app.api.grpc.interceptors.failures import Failures
from app.api.grpc.interceptors.measures import Measures
from app.api.grpc.interceptors.open_streams import OpenStreams
from app.api.grpc.interceptors.request_id import RequestIds
from app.telemetry.calls import CallMetrics


def interceptors(metrics: CallMetrics, *, access_log: AccessLog = AccessLog.FAILED) -> list[Interceptor]:
    """From the outermost to the innermost.

    What logs and measures stands outside of `Failures`, which tells it the status; all that may fail stands inside.
    """
    return [access_log, Measures(metrics), OpenStreams(metrics), Failures(), RequestIds(), Budgets()]
