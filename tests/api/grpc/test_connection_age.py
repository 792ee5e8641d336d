"""Connections that have reached their age: clients come back over new ones, and no call is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from app.api.grpc.call import Behaviour, Call, Method
from app.api.grpc.interceptors.failures import Failures
from app.api.grpc.options import ServerOptions
from app.api.grpc.server import GrpcServer
from tests.api.grpc.fake_cache import FakeCache, service_over

GET = "/template.v1.TemplateService/GetTemplateDetails"


class _Peers:
    """Which connections calls have come by."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def wrap(self, _method: Method, behaviour: Behaviour) -> Behaviour:
        async def noted(call: Call) -> bytes | None:
            self.seen.add(call.context.peer())
            return await behaviour(call)

        return noted


@asynccontextmanager
async def served(cache: FakeCache, options: ServerOptions, peers: _Peers) -> AsyncIterator[grpc.aio.Channel]:
    server = GrpcServer(service_over(cache), "127.0.0.1", 0, options=options, interceptors=[Failures(), peers])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}") as channel:
        yield channel
    await server.drain(1)


async def test_calls_move_on_to_new_connections_and_none_is_lost() -> None:
    peers = _Peers()
    async with served(FakeCache(), ServerOptions(max_connection_age_s=0.1), peers) as channel:

        async def caller() -> None:
            while len(peers.seen) < 6:
                await channel.unary_unary(GET)(b"\x08\x01", timeout=30)  # raises where it is lost

        await asyncio.wait_for(asyncio.gather(*(caller() for _ in range(8))), 60)


async def test_a_call_under_way_finishes_on_its_old_connection_while_others_use_the_new_one() -> None:
    peers = _Peers()
    cache = FakeCache(hold=asyncio.Event())
    async with served(cache, ServerOptions(max_connection_age_s=0.1), peers) as channel:
        long = asyncio.ensure_future(channel.unary_unary(GET)(b"\x08\x01", timeout=30))
        await asyncio.wait_for(cache.begun.wait(), 10)
        health = HealthStub(channel)
        async with asyncio.timeout(30):
            while len(peers.seen) < 3:
                await health.Check(HealthCheckRequest())
        assert not long.done()
        assert cache.hold is not None
        cache.hold.set()
        await asyncio.wait_for(long, 10)


async def test_a_stream_that_outlives_the_grace_is_cut_off_as_unavailable() -> None:
    options = ServerOptions(max_connection_age_s=0.1, max_connection_age_grace_s=0.1)
    async with served(FakeCache(), options, _Peers()) as channel:
        began = time.monotonic()
        watch = HealthStub(channel).Watch(HealthCheckRequest(), timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [_ async for _ in watch]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began > 0.15  # gRPC takes a tenth more or less for the age


async def test_without_a_bound_connections_stay() -> None:
    names = dict(ServerOptions(max_connection_age_s=0).channel_arguments())
    assert "grpc.max_connection_age_ms" not in names
    assert "grpc.max_connection_age_grace_ms" not in names
    bounded = dict(ServerOptions(max_connection_age_s=2.5, max_connection_age_grace_s=0).channel_arguments())
    assert bounded["grpc.max_connection_age_ms"] == 2500
    assert "grpc.max_connection_age_grace_ms" not in bounded
