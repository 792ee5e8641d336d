"""Bearer tokens: who is let in, what the others are told, and which services stay open."""

from __future__ import annotations

import contextlib
import hmac
import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from app.api.grpc.interceptors.access_log import AccessLog
from app.api.grpc.interceptors.stack import HEALTH_SERVICE, CallPolicy, interceptors
from app.api.grpc.reflection import REFLECTION_SERVICES
from app.api.grpc.server import HEALTH_SERVICE as SERVED_HEALTH
from app.api.grpc.server import GrpcServer
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from app.telemetry.metrics import Metrics
from tests.api.grpc.fake_cache import FakeCache, service_over
from tests.api.grpc.interceptors.rig import KINDS, METHODS, each_of, serving, told
from tests.api.grpc.test_statuses import details

TOKENS = {"web": "web-0123456789abcdef", "ci": "ci-0123456789abcdef"}
POLICY = CallPolicy(access_log=AccessLog.ALL, tokens=TOKENS)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_of_every_kind_need_a_token(kind: str) -> None:
    async with serving(POLICY) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.ask(kind)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.details() == "this call needs the metadata `authorization: Bearer TOKEN`"
        assert details(told(caught.value)) == [ErrorInfo(reason="UNAUTHENTICATED", domain="template.v1")]
        assert not rig.servicer.begun.is_set()
        assert rig.value("grpc_requests_total", method=METHODS[kind], status="UNAUTHENTICATED") == 1
        assert rig.value("grpc_refusals_total", why="unauthenticated") == 1
        assert await rig.ask(kind, Question(id=7), metadata=bearer(TOKENS["ci"]))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    async with serving(POLICY) as rig:
        assert await rig.ask("Unary", Question(id=7), metadata=(("authorization", f"{scheme} {TOKENS['web']}"),))


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (["Bearer wrong-0123456789abc"], "the token is not known"),
        ([f"Bearer {TOKENS['web']}x"], "the token is not known"),
        ([f"Bearer {TOKENS['web'][:-1]}"], "the token is not known"),
        ([f"Bearer {TOKENS['web'].upper()}"], "the token is not known"),
        (["Bearer web"], "the token is not known"),
        ([f"Basic {TOKENS['web']}"], "`authorization` must read `Bearer TOKEN`"),
        ([TOKENS["web"]], "`authorization` must read `Bearer TOKEN`"),
        (["Bearer"], "`authorization` must read `Bearer TOKEN`"),
        (["Bearer  "], "`authorization` must read `Bearer TOKEN`"),
        ([""], "`authorization` must read `Bearer TOKEN`"),
        ([f"Bearer {TOKENS['web']}"] * 2, "`authorization` must be sent once"),
    ],
)
async def test_anything_else_is_refused_and_told_what_would_be_right(sent: list[str], text: str) -> None:
    async with serving(POLICY) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.ask("Unary", Question(id=7), metadata=tuple(("authorization", each) for each in sent))
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, text)


async def test_a_method_that_is_not_there_is_not_told_of_without_a_token() -> None:
    async with serving(POLICY) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.ask_of("/test.v1.Kinds/Other")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_name_is_logged_and_no_token_ever_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving(POLICY) as rig:
            await rig.ask("Unary", Question(id=7), metadata=bearer(TOKENS["ci"]))
            with pytest.raises(grpc.aio.AioRpcError):
                await rig.ask("Unary", Question(id=7), metadata=bearer("wrong-0123456789abc"))
    assert " client=ci " in caplog.text
    assert "0123456789abc" not in caplog.text
    assert "0123456789" not in repr(POLICY)


async def test_every_token_is_compared_with_in_constant_time_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(len(one) + len(other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    async with serving(POLICY) as rig:
        for token in (*TOKENS.values(), "short", "wrong" * 100):
            await rig.status("Unary", Question(id=7), metadata=bearer(token))
    assert compared == [64] * 2 * 4


@pytest.mark.parametrize("is_open", [True, False])
async def test_health_and_reflection_are_open_by_choice(is_open: bool) -> None:
    policy = CallPolicy(tokens=TOKENS, open_health=is_open, open_reflection=is_open)
    metrics = Metrics(mode="none", version="0", ttl_s=1)
    server = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0, interceptors=interceptors(metrics.calls, policy))
    port = await server.start()
    expected = grpc.StatusCode.OK if is_open else grpc.StatusCode.UNAUTHENTICATED
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = channel.unary_unary(f"/{HEALTH_SERVICE}/Check")
            assert await check(HealthCheckRequest().SerializeToString(), timeout=10).code() is expected
            for service in REFLECTION_SERVICES:
                method = channel.stream_stream(f"/{service}/ServerReflectionInfo")
                asked = [ServerReflectionRequest(list_services="").SerializeToString()] if is_open else []
                call = method(each_of(asked), timeout=10)
                with contextlib.nullcontext() if is_open else pytest.raises(grpc.aio.AioRpcError):
                    assert [answer async for answer in call]
                assert await call.code() is expected
            get = channel.unary_unary("/template.v1.TemplateService/GetTemplateDetails")
            assert await get(Question(id=1).SerializeToString(), timeout=10).code() is grpc.StatusCode.UNAUTHENTICATED
            answer = await check(HealthCheckRequest().SerializeToString(), metadata=bearer(TOKENS["web"]), timeout=10)
            assert HealthCheckResponse.FromString(answer).status == HealthCheckResponse.NOT_SERVING
    finally:
        await server.drain(1)


def test_the_health_service_that_stays_open_is_the_one_that_is_served() -> None:
    assert HEALTH_SERVICE == SERVED_HEALTH


async def test_who_has_no_token_is_refused_before_anything_is_read() -> None:
    async with serving(POLICY) as rig:
        call = rig.channel.stream_stream(f"/{METHODS['Unary']}")(timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
