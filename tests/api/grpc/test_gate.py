"""Calls that come as a drain begins."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import cast

import grpc
import pytest

from app.api.grpc import gate as module
from app.api.grpc.call import Call, Kind, Method
from app.api.grpc.gate import Gate
from app.concurrency.fair_timeout import LAG_S
from tests.api.grpc.conftest import Running
from tests.faults.polling import until

METHOD = Method("s", "s/m", Kind.UNARY)
CALL = cast("Call", None)


async def answer(_call: Call) -> bytes | None:
    return b"answer"


async def test_calls_pass_until_it_is_shut_and_are_held_until_it_opens() -> None:
    gate = Gate()
    pass_through = gate.wrap(METHOD, answer)
    assert await pass_through(CALL) == b"answer"
    await gate.shut()
    held = asyncio.ensure_future(pass_through(CALL))
    await asyncio.wait({held}, timeout=0.01)
    assert not held.done()
    gate.open()
    assert await asyncio.wait_for(held, 5) == b"answer"
    assert await pass_through(CALL) == b"answer"


async def test_a_held_call_whose_caller_leaves_is_gone() -> None:
    gate = Gate()
    await gate.shut()
    held = asyncio.ensure_future(gate.wrap(METHOD, answer)(CALL))
    await asyncio.sleep(0)
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held


async def test_an_idle_server_does_not_wait_for_calls_that_nobody_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 60)
    await asyncio.wait_for(Gate().shut(), 10)


@pytest.mark.parametrize("calls", ["before", "meanwhile"])
async def test_who_is_being_called_waits_for_the_next_calls_or_to_be_hurried(
    monkeypatch: pytest.MonkeyPatch, calls: str
) -> None:
    monkeypatch.setattr(module, "HOLD_S", 60)
    gate = Gate()
    end = asyncio.Event()

    async def work(_call: Call) -> None:
        await end.wait()

    if calls == "before":
        call = asyncio.ensure_future(gate.wrap(METHOD, work)(CALL))
        await asyncio.sleep(0)
    shutting = asyncio.ensure_future(gate.shut())
    await asyncio.sleep(0)
    if calls == "meanwhile":
        call = asyncio.ensure_future(gate.wrap(METHOD, work)(CALL))
    await asyncio.wait({shutting}, timeout=3 * module.IDLE_S)
    assert not shutting.done()
    gate.hurry()
    await asyncio.wait_for(shutting, 5)
    end.set()
    gate.open()
    await call


async def test_calls_that_came_while_the_event_loop_was_held_up_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_S", 60)
    gate = Gate()
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def hold_up() -> None:
        theirs.sendall(b"call")
        time.sleep(module.IDLE_S + 5 * LAG_S)

    async def call() -> bytes | None:
        assert await loop.sock_recv(ours, 2) + await loop.sock_recv(ours, 2) == b"call"
        return await gate.wrap(METHOD, answer)(CALL)

    with ours, theirs:
        calling = asyncio.ensure_future(call())
        shutting = asyncio.ensure_future(gate.shut())
        await asyncio.sleep(0)
        hold_up()
        await until(lambda: gate._come == 1, "the call is there")
        assert not shutting.done()
        gate.hurry()
        await asyncio.wait_for(shutting, 5)
        gate.open()
        assert await asyncio.wait_for(calling, 5) == b"answer"


async def test_callers_who_call_again_and_again_lose_no_call_to_a_drain(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the gate, nearly each of them loses one: gRPC cancels all that is not handed over yet."""
    for name in ("IDLE_S", "HOLD_S"):  # until all are held, however slow this machine is
        monkeypatch.setattr(module, name, 60)
    outcomes: list[grpc.StatusCode] = []
    under_way = asyncio.Event()

    async def caller(channel: grpc.aio.Channel) -> None:
        call = channel.unary_unary("/template.v1.TemplateService/GetTemplateDetails")
        for number in range(1_000_000):
            try:
                await call(b"\x08\x01", timeout=30)
            except grpc.aio.AioRpcError as error:
                outcomes.append(error.code())
                return
            if number == 5:
                under_way.set()

    target = f"127.0.0.1:{running.port}"
    channels = [grpc.aio.insecure_channel(target, [("connection", number)]) for number in range(4)]
    callers = [asyncio.ensure_future(caller(channel)) for channel in channels for _ in range(4)]
    await asyncio.wait_for(under_way.wait(), 30)
    drain = asyncio.ensure_future(running.server.drain(30))
    gate = running.server._gate
    await until(lambda: gate._opened is not None and gate._inside == len(callers), "all are held")
    gate.hurry()
    await asyncio.wait_for(drain, 60)
    await asyncio.wait_for(asyncio.gather(*callers), 60)
    for channel in channels:
        await channel.close()
    # Refused once they came back: there is nobody else to call here.
    assert outcomes == [grpc.StatusCode.UNAVAILABLE] * 16
