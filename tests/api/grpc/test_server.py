from __future__ import annotations

import asyncio
import socket

import grpc
import pytest

from app.api.grpc.server import ENDLESS_S, GrpcServer
from tests.api.grpc.conftest import Running
from tests.api.grpc.fake_cache import FakeCache, service_over


async def test_port_zero_takes_a_free_port_and_a_given_port_is_kept() -> None:
    first = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0)
    port = await first.start()
    await first.drain(1)
    again = GrpcServer(service_over(FakeCache()), "127.0.0.1", port)
    assert await again.start() == port
    await again.drain(1)


async def test_a_port_that_another_grpc_server_has_is_refused_not_shared(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match=f"gRPC can't listen on 127.0.0.1:{running.port}: Address already in use"):
        await GrpcServer(service_over(FakeCache()), "127.0.0.1", running.port).start()
    assert capfd.readouterr().err == ""


async def test_a_port_that_any_other_program_has_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"gRPC can't listen on 127.0.0.1:{port}: Address already in use"):
            await GrpcServer(service_over(FakeCache()), "127.0.0.1", port).start()


async def test_its_port_cannot_be_shared_even_by_one_who_asks_to(running: Running) -> None:
    with socket.socket() as second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            second.bind(("127.0.0.1", running.port))


async def test_an_address_of_another_machine_is_refused_by_name() -> None:
    with pytest.raises(OSError, match=r"gRPC can't listen on 203\.0\.113\.9:0: "):
        await GrpcServer(service_over(FakeCache()), "203.0.113.9", 0).start()


async def test_an_ipv6_address_can_be_listened_on() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server = GrpcServer(service_over(FakeCache()), "::1", 0)
    port = await server.start()
    async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 5)
    await server.drain(1)


async def test_a_drain_lets_calls_in_flight_finish_and_takes_no_new_ones(running: Running) -> None:
    running.cache.hold = asyncio.Event()
    call = asyncio.ensure_future(running.get(1))
    await asyncio.wait_for(running.cache.begun.wait(), 5)
    drain = asyncio.ensure_future(running.server.drain(30))
    await asyncio.wait_for(running.server._told_to_go.wait(), 5)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as late:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await late.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
    # CANCELLED where it came in the instant in which the GOAWAY went out.
    assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert not drain.done()
    running.cache.hold.set()
    assert (await call).template.id == 1
    await asyncio.wait_for(drain, 5)


async def test_a_drain_cancels_what_is_still_running_at_its_limit(running: Running) -> None:
    running.cache.hold = asyncio.Event()
    call = asyncio.ensure_future(running.get(1))
    await asyncio.wait_for(running.cache.begun.wait(), 5)
    await asyncio.wait_for(running.server.drain(0.05), 5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    await asyncio.wait_for(running.cache.cancelled.wait(), 5)


async def test_a_second_drain_hastens_the_first(running: Running) -> None:
    running.cache.hold = asyncio.Event()
    call = asyncio.ensure_future(running.get(1))
    await asyncio.wait_for(running.cache.begun.wait(), 5)
    first = asyncio.ensure_future(running.server.drain(30))
    await asyncio.wait({first}, timeout=0.05)
    await asyncio.wait_for(running.server.drain(0), 5)
    await asyncio.wait_for(first, 5)
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_drains_whose_limits_coincide_leave_no_period_of_grpcs_own_to_end(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Underneath, where the periods of two stops ended together, the one used the server that the other had destroyed:
    a segmentation fault, in one drain of eight on a busy machine."""
    server = running.server._server
    assert server is not None
    stop = server.stop
    periods: list[float | None] = []

    async def recording(period_s: float | None) -> None:
        periods.append(period_s)
        await stop(period_s)

    monkeypatch.setattr(server, "stop", recording)
    running.cache.hold = asyncio.Event()
    call = asyncio.ensure_future(running.get(1))
    await asyncio.wait_for(running.cache.begun.wait(), 5)
    await asyncio.wait_for(asyncio.gather(*(running.server.drain(0.05) for _ in range(5))), 5)
    await asyncio.gather(call, return_exceptions=True)
    assert periods == [ENDLESS_S, None]


async def test_a_drained_port_is_free(running: Running) -> None:
    await running.server.drain(1)
    socket.create_server(("127.0.0.1", running.port)).close()


async def test_draining_twice_or_before_the_start_is_harmless(running: Running) -> None:
    await running.server.drain(1)
    await running.server.drain(1)
    await GrpcServer(service_over(FakeCache()), "127.0.0.1", 0).drain(1)
