"""1 to 4: how calls end, what their ends say of the backend, and what of them reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest

from app.concurrency.breaker import CircuitBreaker
from app.loom.proxy import connection, status
from app.loom.proxy.interception import Interception
from app.loom.proxy.limits import Limits
from tests.loom.account import WAIT_S, eventually
from tests.loom.backend import Backend
from tests.loom.conftest import proxied, serving
from tests.loom.defects.front import ALONE, Front, fronted
from tests.loom.raw import Heard, Peer, scripted
from tests.loom.test_breaker import Time, details, failed_call
from tests.loom.wire import RESPONSE_HEADERS, data, message, reset

ERRORS = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
CANCEL = 8


async def test_01_every_code_of_a_trailers_only_error_is_recorded_and_counted_as_itself(rules: Path | None) -> None:
    async with serving(Backend()) as (_, port), fronted(port, rules) as front:
        unary = front.channel.unary_unary("/test.Interop/Unary")
        assert await unary(b"ask", timeout=WAIT_S) == b"ask"
        for code in ERRORS:
            assert await unary(b"ask", metadata=(("x-status", str(code.value[0])),), timeout=WAIT_S).code() is code
        first, *rows = await front.ended(17)
        assert first["statusName"] == "OK"
        assert [row["statusName"] for row in rows] == [code.name for code in ERRORS]
        for row, code in zip(rows, ERRORS, strict=True):
            told = await front.get(f"/api/calls/{row['id']}")
            assert (told["statusCode"], told["ending"]) == (code.value[0], "trailers_only")
            assert ["grpc-status", str(code.value[0])] in told["trailers"]
        metrics = await front.metrics()
        assert all(f'status="{code.name}"}} 1.0' in metrics for code in ERRORS)
        assert metrics.count('status="OK"} 1.0') == 1


def http_503(peer: Peer) -> None:
    peer.send(peer.block(1, [(":status", "503"), ("content-type", "text/html")], end=True))


def no_status(peer: Peer) -> None:
    peer.send(answered(peer) + peer.block(1, [("x-some", "trailer")], end=True))


def killed(peer: Peer) -> None:
    peer.send(answered(peer))
    peer.writer.transport.close()


def reset_after_headers(peer: Peer) -> None:
    peer.send(peer.block(1, RESPONSE_HEADERS) + reset(1, 2))


def reset_in_the_stream(peer: Peer) -> None:
    peer.send(answered(peer) + reset(1, CANCEL))


def answered(peer: Peer) -> bytes:
    return peer.block(1, RESPONSE_HEADERS) + data(1, message(b"answer"))


@pytest.mark.parametrize(
    ("end", "is_stream"),
    [(http_503, False), (no_status, False), (reset_after_headers, False), (killed, True), (reset_in_the_stream, True)],
)
async def test_01_no_call_that_failed_is_recorded_as_ok_or_not_at_all(
    end: Callable[[Peer], None], is_stream: bool, rules: Path | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.stream()
        end(peer)
        await peer.end()

    async with scripted(script) as port, fronted(port, rules) as front:
        if is_stream:
            stream = front.channel.unary_stream("/test.Raw/Call")(b"ask", timeout=WAIT_S)
            with contextlib.suppress(grpc.aio.AioRpcError):  # the end may overtake it in the client
                assert await stream.read() == b"answer"
            code = await stream.code()
        else:
            code = await front.channel.unary_unary("/test.Raw/Call")(b"ask", timeout=WAIT_S).code()
        assert code is not grpc.StatusCode.OK
        told = await front.one()
        assert (told["statusName"], told["statusCode"]) == (code.name, code.value[0])
        assert f'status="{code.name}"}} 1.0' in await front.metrics()


async def test_01_a_stream_that_its_client_cancels_is_recorded_as_cancelled(rules: Path | None) -> None:
    async with serving(Backend()) as (_, port), fronted(port, rules) as front:
        call = front.channel.stream_stream("/test.Interop/Bidi")()
        await call.write(b"sizes 3")
        assert await call.read() == b"rrr"
        call.cancel()
        told = await front.one()
        assert (told["statusName"], told["responses"], told["ending"]) == ("CANCELLED", 1, "reset_by_client")


async def test_02_cancels_and_deadlines_are_not_held_against_the_backend(
    rules: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where headers are read late, on a busy machine, a reset at the deadline comes soon after them.
    monkeypatch.setattr(status, "SLACK_S", 1.5)

    async def impatient(front: Front) -> None:
        """A client that cancels, whose deadline passes, and that then goes with its connection."""
        async with grpc.aio.insecure_channel(front.target, options=ALONE) as channel:
            cancelled = channel.stream_stream("/test.Interop/Bidi")()
            await cancelled.write(b"sizes 3")
            assert await cancelled.read() == b"rrr"
            cancelled.cancel()
            late = channel.unary_unary("/test.Interop/Sleep")(b"", timeout=2.0)
            assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async with serving(Backend()) as (_, port), fronted(port, rules) as front:
        clients = 6  # one more than failures in a row open the breaker
        await asyncio.gather(*(impatient(front) for _ in range(clients)))
        assert await front.channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
        assert (await front.get("/health"))["circuit_breaker"] == "closed"
        assert "loom_circuit_breaker_state 0.0" in await front.metrics()
        told = Counter(row["statusName"] for row in await front.ended(2 * clients + 1))
        assert told == {"CANCELLED": clients, "DEADLINE_EXCEEDED": clients, "OK": 1}


async def test_03_while_a_probe_hangs_other_calls_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # However late a client asks, on a busy machine, it is answered, and has no reason to come again.
    monkeypatch.setattr(connection, "RETRY_S", WAIT_S)
    hangs, dialled, may_end = False, asyncio.Event(), asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        if hangs:  # in the midst of TLS
            await may_end.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    time = Time()
    breaker = CircuitBreaker(failures=1, open_s=30, clock=time)
    context = ssl.create_default_context()
    async with (
        server,
        proxied(server.sockets[0].getsockname()[1], Limits(), behind_tls=context, breaker=breaker) as front,
    ):
        assert details(await failed_call(front))[0] == "BACKEND_UNREACHABLE"
        time.now += 30
        hangs = True
        dialled.clear()
        probing = asyncio.create_task(failed_call(front))
        await asyncio.wait_for(dialled.wait(), WAIT_S)
        assert breaker.state.name == "HALF_OPEN"
        for _ in range(3):
            assert details(await failed_call(front))[0] == "CIRCUIT_BREAKER_OPEN"
        may_end.set()
        await probing
        assert breaker.state.name == "OPEN"


async def test_03_a_dead_backend_shows_in_health_and_an_open_breaker_in_ready() -> None:
    async with contextlib.AsyncExitStack() as up:
        _, port = await up.enter_async_context(serving(Backend()))
        async with fronted(port) as front:
            assert await front.channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
            assert (await front.get("/health"))["backend"] == "connected"
            assert (await front.http.get("/ready")).status_code == 200
            await up.aclose()
            await eventually(lambda: unready(front, "refused"))
            health = await front.http.get("/health")
            assert (health.status_code, health.json()["backend"]) == (503, "unreachable")
            for _ in range(5):
                async with grpc.aio.insecure_channel(front.target, options=ALONE) as channel:
                    call = channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S)
                    assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert await unready(front, "the circuit breaker is open")
            health = await front.http.get("/health")
            assert (health.status_code, health.json()["status"]) == (503, "degraded")
            assert (health.json()["circuit_breaker"], health.json()["backend"]) == ("open", "unreachable")
            assert "loom_circuit_breaker_state 2.0" in await front.metrics()


async def unready(front: Front, why: str) -> bool:
    answer: httpx.Response = await front.http.get("/ready")
    return answer.status_code == 503 and why in answer.json()["error"]


async def test_04_a_cancelled_upload_reaches_the_backend_as_a_reset_and_not_as_its_end(
    interception: Interception | None,
) -> None:
    begun = asyncio.Event()
    heard: asyncio.Queue[Heard] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        begun.set()
        heard.put_nowait(await peer.stream())
        await peer.end()

    async with (
        scripted(script) as port,
        proxied(port, interception=interception) as front,
        grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel,
    ):
        call = channel.stream_unary("/test.Raw/Upload")()
        await call.write(b"the first part")
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await front.account.until(lambda: any(call.messages for call in front.account.calls.values()))
        call.cancel()
        got = await asyncio.wait_for(heard.get(), WAIT_S)
        assert (got.body, got.reset_code) == (message(b"the first part"), CANCEL)
        told = await front.account.one()
        assert (told.half_closed, told.requests) == (None, [b"the first part"])
