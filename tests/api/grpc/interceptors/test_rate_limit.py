"""How often a client may call: whose calls are counted together, and what the one that calls too often is told."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from app.api.grpc.call import UNKNOWN, Call, Interceptor
from app.api.grpc.interceptors.authentication import Authentication
from app.api.grpc.interceptors.rate_limit import RateLimit
from app.api.grpc.interceptors.stack import HEALTH_SERVICE, CallPolicy, interceptors
from app.concurrency.token_bucket import TokenBuckets
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from app.telemetry.metrics import Metrics
from tests.api.grpc.interceptors.rig import KINDS, SERVICE, Rig, serving, told
from tests.api.grpc.interceptors.test_authentication import TOKENS, bearer
from tests.api.grpc.test_statuses import details
from tests.concurrency.test_token_bucket import Clock


def limited(clock: Clock, *, burst: int, exempt: tuple[str, ...] = ()) -> RateLimit:
    buckets = TokenBuckets(rate_per_s=2.0, burst=burst, max_keys=10, now=clock)
    return RateLimit(buckets, exempt_services=exempt)


async def _is_taken(rig: Rig, kind: str = "Unary", **options: object) -> bool:
    code = await rig.status(kind, Question(id=7), **options)
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    return code is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_past_its_burst_is_told_when_to_try_again_and_is_taken_then(kind: str) -> None:
    clock = Clock()
    async with serving(None, limited(clock, burst=2)) as rig:
        assert [await _is_taken(rig, kind) for _ in range(2)] == [True, True]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.ask(kind)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "too many calls from this client; try again in 0.5 s"
        info, retry = details(told(caught.value))
        assert info == ErrorInfo(reason="RATE_LIMITED", domain="template.v1")
        assert isinstance(retry, RetryInfo)
        wait_s = retry.retry_delay.ToTimedelta().total_seconds()
        assert wait_s == 0.5
        assert rig.value("grpc_refusals_total", why="rate_limited") == 1
        clock.at += wait_s
        assert await _is_taken(rig, kind)


async def test_without_names_a_client_is_its_address_whatever_connection_it_uses() -> None:
    async with serving(None, limited(Clock(), burst=1)) as rig:
        assert await _is_taken(rig)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}", [("grpc.use_local_subchannel_pool", 1)]) as other:
            assert not await _is_taken(Rig(rig.servicer, rig.metrics, rig.port, other))


async def test_with_names_each_has_a_bucket_of_its_own_wherever_it_calls_from() -> None:
    stack: list[Interceptor] = [Authentication(TOKENS), limited(Clock(), burst=1)]
    async with serving(None, *stack) as rig:
        web, ci = bearer(TOKENS["web"]), bearer(TOKENS["ci"])
        assert await _is_taken(rig, metadata=web)
        assert not await _is_taken(rig, metadata=web)
        assert await _is_taken(rig, metadata=ci)


async def test_services_that_are_exempt_are_neither_refused_nor_counted() -> None:
    async with serving(None, limited(Clock(), burst=1, exempt=(SERVICE,))) as rig:
        assert all([await _is_taken(rig) for _ in range(5)])


@pytest.mark.parametrize(
    ("peer", "other", "same"),
    [
        ("ipv4:10.0.0.1:1", "ipv4:10.0.0.1:2", True),
        ("ipv4:10.0.0.1:1", "ipv4:10.0.0.2:1", False),
        ("ipv6:%5B::1%5D:1", "ipv6:%5B::1%5D:2", True),
        ("ipv6:[::1]:1", "ipv6:[::2]:1", False),
        ("unix:", "unix:", True),
    ],
)
async def test_an_address_is_taken_without_its_port(peer: str, other: str, same: bool) -> None:
    taken: list[str] = []

    class Recording(TokenBuckets):
        def take(self, key: str) -> float:
            taken.append(key)
            return 0.0

    class Context:
        def __init__(self, peer: str) -> None:
            self._peer = peer

        def peer(self) -> str:
            return self._peer

        def invocation_metadata(self) -> tuple[()]:
            return ()

    async def behaviour(_call: Call) -> None: ...

    limit = RateLimit(Recording(rate_per_s=1, burst=1, max_keys=1)).wrap(UNKNOWN, behaviour)
    for each in (peer, other):
        await limit(Call(UNKNOWN, Context(each)))
    assert (taken[0] == taken[1]) is same


def test_by_default_there_is_no_limit_and_with_one_health_is_spared() -> None:
    metrics = Metrics(mode="none", version="0", ttl_s=1)
    assert not any(isinstance(each, RateLimit) for each in interceptors(metrics.calls))
    [limit] = [each for each in interceptors(metrics.calls, CallPolicy(rate_per_s=1)) if isinstance(each, RateLimit)]
    assert limit._exempt_services == {HEALTH_SERVICE}
