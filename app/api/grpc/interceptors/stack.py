"""Which interceptors there are, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.trace import Tracer

from app.api.grpc.call import Interceptor
from app.api.grpc.interceptors.access_log import AccessLog
from app.api.grpc.interceptors.authentication import Authentication
from app.api.grpc.interceptors.budget import Budgets
from app.api.grpc.interceptors.failures import Failures
from app.api.grpc.interceptors.measures import Measures
from app.api.grpc.interceptors.metadata import MetadataRules
from app.api.grpc.interceptors.open_streams import OpenStreams
from app.api.grpc.interceptors.rate_limit import RateLimit
from app.api.grpc.interceptors.request_id import RequestIds
from app.api.grpc.interceptors.tracing import Tracing
from app.api.grpc.reflection import REFLECTION_SERVICES
from app.concurrency.token_bucket import TokenBuckets
from app.telemetry.calls import CallMetrics

HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_CLIENTS = 10_000
"""Clients whose rates are remembered at a time."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What is asked of calls. The defaults ask for nothing.

    `tokens`, by their clients' names, are asked for where there are any; `open_health` and `open_reflection` spare
    those services. `rate_per_s` calls a second are taken from a client, 0 for no limit, and up to `rate_burst` at once.
    """

    access_log: AccessLog = AccessLog.FAILED
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    open_health: bool = True
    open_reflection: bool = True
    rate_per_s: float = 0.0
    rate_burst: int = 100


def interceptors(
    metrics: CallMetrics, policy: CallPolicy | None = None, tracer: Tracer | None = None
) -> list[Interceptor]:
    """From the outermost to the innermost. With a `tracer` each call is a span, which all the others are inside of.

    What logs and measures stands outside of `Failures`, which tells it the status; all that may refuse a call stands
    inside. Health checks are never refused for their rate: a probe that is refused takes the replica out of service.
    """
    policy = policy or CallPolicy()
    stack: list[Interceptor] = [
        *([] if tracer is None else [Tracing(tracer)]),
        policy.access_log,
        Measures(metrics),
        OpenStreams(metrics),
        Failures(metrics),
        RequestIds(),
        MetadataRules(),
    ]
    if policy.tokens:
        open_services = [HEALTH_SERVICE] if policy.open_health else []
        open_services += REFLECTION_SERVICES if policy.open_reflection else []
        stack.append(Authentication(policy.tokens, open_services=open_services))
    if policy.rate_per_s:
        buckets = TokenBuckets(rate_per_s=policy.rate_per_s, burst=policy.rate_burst, max_keys=MAX_CLIENTS)
        stack.append(RateLimit(buckets, exempt_services=[HEALTH_SERVICE]))
    return [*stack, Budgets()]
