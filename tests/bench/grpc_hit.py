"""What a cached GetTemplateDetails costs the server, beside a bare grpc.aio handler that returns the same bytes."""

from __future__ import annotations

import re

import grpc

from app.embedded.stack import EmbeddedStack
from app.proto.template.v1.template_pb2 import SOURCE_L1, GetTemplateDetailsRequest, GetTemplateDetailsResponse
from tests.bench import servers
from tests.bench.figure import BenchError, Effort, Figure, Run, Subject
from tests.bench.grpc_load import load
from tests.bench.servers import Cost, Server

METHOD = "/template.v1.TemplateService/GetTemplateDetails"
REQUEST = GetTemplateDetailsRequest(id=1).SerializeToString()
_CALLS = re.compile(
    rb'^grpc_requests_total\{method="template.v1.TemplateService/GetTemplateDetails",status="OK"\} (\S+)$', re.MULTILINE
)


def _grpc_unary_hit(effort: Effort) -> dict[str, Run]:
    with EmbeddedStack() as stack, servers.app(stack) as app:
        _answer(app.grpc_target)
        cached = _answer(app.grpc_target)
        if GetTemplateDetailsResponse.FromString(cached).source != SOURCE_L1:
            raise BenchError("the second call is no hit in the app's own memory")
        with servers.bare_grpc(METHOD, cached) as bare:
            for server in (app, bare):
                load(server.grpc_target, METHOD, REQUEST, seconds=effort.warm_up_s)
            loads, calls = app.database_loads(), _counted_calls(app)
            (ours, answered), (theirs, _) = _measure(app, effort), _measure(bare, effort)
            if app.database_loads() != loads:
                raise BenchError("not every call was answered from the cache")
            if _counted_calls(app) - calls != answered:
                raise BenchError("not every call passed through the interceptors")
    return {
        "grpc_unary_hit": Run(ours.cpu_us, theirs.cpu_us),
        "grpc_unary_hit_rps": Run(ours.rps, theirs.rps),
    }


def _answer(target: str) -> bytes:
    with grpc.insecure_channel(target) as channel:
        try:
            answer: bytes = channel.unary_unary(METHOD)(REQUEST, timeout=10)
        except grpc.RpcError as error:
            raise BenchError(f"no answer from {target}: {error}") from error
    return answer


def _measure(server: Server, effort: Effort) -> tuple[Cost, int]:
    """What a call costs, and how many there were."""
    before = server.cpu_s()
    done = load(server.grpc_target, METHOD, REQUEST, seconds=effort.load_s)
    return Cost((server.cpu_s() - before) / done.requests * 1e6, done.requests / done.seconds), done.requests


def _counted_calls(app: Server) -> float:
    found = _CALLS.search(app.get("/metrics").body)
    if found is None:
        raise BenchError("the app does not count the calls of this method")
    return float(found[1])


_BASELINE = "a bare grpc.aio handler that returns the same bytes, without interceptors"

GRPC_UNARY_HIT = Subject(
    [
        Figure("grpc_unary_hit", "µs", baseline=_BASELINE, ratio_at_most=1.4),
        Figure("grpc_unary_hit_rps", "calls/s", baseline=_BASELINE),
    ],
    _grpc_unary_hit,
)
"""Processor time of the server a call, by its process' own accounting, and calls a second; in mode `full`, with all
interceptors that are on by default."""
