"""The circuit breaker in front of a backend: what opens it, what does not, and what clients get meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from functools import partial
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.loom.probes import Health
from app.loom.proxy import connection, framing
from app.loom.proxy.limits import Limits
from app.loom.proxy.link import GuardedUpstream
from app.loom.proxy.upstream import DialError, Upstream
from tests.loom.account import WAIT_S, Call
from tests.loom.backend import Backend
from tests.loom.conftest import UNLIMITED, Front, proxied, serving
from tests.loom.raw import Peer, client, scripted
from tests.loom.wire import REQUEST_HEADERS


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def details(error: grpc.aio.AioRpcError) -> tuple[str, float]:
    """The reason and the retry delay that the answer carries."""
    found: dict[str, Any] = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(found["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert info.domain == "loom"
    return info.reason, retry.retry_delay.ToMilliseconds() / 1e3


async def failed_call(front: Front) -> grpc.aio.AioRpcError:
    """The error of a call on a connection of its own."""
    options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}", options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S)
    return error.value


async def test_failed_dials_open_it_and_one_dial_that_succeeds_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # However late a client asks, on a busy machine, it is answered, and has no reason to come again.
    monkeypatch.setattr(connection, "RETRY_S", WAIT_S)
    port, time = free_port(), Time()
    breaker = CircuitBreaker(failures=2, open_s=30, clock=time)
    backend = Backend()
    async with proxied(port, breaker=breaker) as front:
        for _ in range(2):
            error = await failed_call(front)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert details(error) == ("BACKEND_UNREACHABLE", WAIT_S)
        assert breaker.state.name == "OPEN"
        time.now += 10
        dials = front.account.counts["dial failed"]
        assert details(await failed_call(front)) == ("CIRCUIT_BREAKER_OPEN", 20.0)
        assert front.account.counts["dial failed"] == dials
        assert front.account.counts["refused breaker"] == 1
        time.now += 20
        assert details(await failed_call(front))[0] == "BACKEND_UNREACHABLE"  # the probe
        assert breaker.retry_after_s == 30
        async with serving(backend, port=port):
            assert details(await failed_call(front))[0] == "CIRCUIT_BREAKER_OPEN"
            time.now += 30
            async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}", options=UNLIMITED) as channel:
                assert await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
                assert breaker.state is BreakerState.CLOSED


async def test_a_channel_that_was_answered_finds_the_backend_once_it_is_back() -> None:
    port = free_port()
    async with (
        proxied(port) as front,
        grpc.aio.insecure_channel(f"127.0.0.1:{front.port}", options=UNLIMITED) as channel,
    ):
        unary = channel.unary_unary("/test.Interop/Unary")
        with pytest.raises(grpc.aio.AioRpcError):
            await unary(b"ask", timeout=WAIT_S)
        async with serving(Backend(), port=port), asyncio.timeout(WAIT_S):
            # No back-off: the channel was asked to go, not refused.
            assert await unary(b"ask", timeout=WAIT_S) == b"ask"


async def test_connections_that_the_backend_loses_under_calls_open_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.headers()
        peer.writer.transport.abort()

    breaker = CircuitBreaker(failures=3)
    async with scripted(script) as port, proxied(port, breaker=breaker) as front:

        def gone(connections: int) -> bool:
            return front.account.counts["disconnected"] == connections

        for number in range(3):
            assert breaker.state is BreakerState.CLOSED
            async with client(front.port) as caller:
                caller.send(caller.block(1, REQUEST_HEADERS))
                await caller.end()
            await front.account.until(partial(gone, number + 1))
        assert breaker.state is BreakerState.OPEN
        assert front.account.lost == [(1, True)] * 3


def cancelled(calls: Iterable[Call]) -> list[Call]:
    """Those that have ended without a deadline of their own."""
    return [call for call in calls if call.ended and "Sleep" in call.method and call.started.timeout_s is None]


async def test_neither_cancels_nor_deadlines_nor_statuses_nor_idle_ends_count() -> None:
    backend, breaker = Backend(), CircuitBreaker(failures=1)
    async with serving(backend) as (_, port), proxied(port, Limits(linger_s=0.2), breaker=breaker) as front:
        for _ in range(2):
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{front.port}", options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary("/test.Interop/Unary")(b"", metadata=(("x-status", "14"),))
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary("/test.Interop/Sleep")(b"", timeout=0.2)
                backend.arrived.clear()
                call = channel.unary_unary("/test.Interop/Sleep")(b"")
                await asyncio.wait_for(backend.arrived.wait(), WAIT_S)
                call.cancel()
        await front.account.until(lambda: len(cancelled(front.account.calls.values())) == 2)  # the last of each channel
        async with client(front.port) as caller:
            before = len(front.account.calls)  # a deadline may be over before a busy machine has sent the call
            caller.send(caller.block(1, REQUEST_HEADERS))
            await front.account.until(lambda: len(front.account.calls) == before + 1)
            caller.writer.transport.abort()
    assert front.account.counts["disconnected"] == 3
    assert breaker.state is BreakerState.CLOSED

    async def close(peer: Peer) -> None:
        await peer.read()

    async with scripted(close) as port, proxied(port, breaker=breaker) as front:
        async with client(front.port) as caller:
            await caller.end()
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert breaker.state is BreakerState.CLOSED


async def test_probes_say_that_it_is_open_and_close_it_when_nobody_else_comes() -> None:
    port, time = free_port(), Time()
    breaker = CircuitBreaker(failures=1, open_s=30, clock=time)
    upstream = Upstream("127.0.0.1", port, timeout_s=WAIT_S, handshake_s=WAIT_S)
    health = Health(GuardedUpstream(upstream, breaker), clock=time)
    assert "refused" in (await health.failure() or "")
    assert health.breaker == "closed"  # asking is not what opens it
    with pytest.raises(DialError):
        await GuardedUpstream(upstream, breaker).dial(asyncio.Protocol)
    async with serving(Backend(), port=port):
        time.now += 29
        assert await health.failure() == "the circuit breaker is open: it lets the next one by in 1 s"
        assert health.breaker == "open"
        time.now += 1
        assert await health.failure() is None
        assert health.breaker == "closed"


async def test_an_answered_connection_is_asked_to_go_and_closed_soon() -> None:
    async with proxied(free_port()) as front, client(front.port) as caller:
        await caller.next(framing.GOAWAY)
        await caller.end()
        assert front.account.counts == {"dial failed": 1}
