"""How calls are accounted for whose one message never comes, by why it doesn't."""

from __future__ import annotations

import asyncio

import pytest

from app.api.grpc import chain
from app.api.grpc.call import Behaviour, Call, Method
from app.api.grpc.interceptors.failures import Failures
from app.api.grpc.server import GrpcServer
from tests.api.grpc.fake_cache import FakeCache, service_over
from tests.api.grpc.raw_client import message, raw_client

GET = "/template.v1.TemplateService/GetTemplateDetails"


class _Statuses:
    """What each call ended with."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    def wrap(self, _method: Method, behaviour: Behaviour) -> Behaviour:
        async def noted(call: Call) -> bytes | None:
            self.begun.set()
            try:
                return await behaviour(call)
            finally:
                self.ended.put_nowait(call.status)

        return noted


@pytest.mark.parametrize("why", ["too large", "reset", "deadline", "connection lost", "none sent"])
async def test_a_call_without_a_message_is_the_clients_fault_only_where_the_client_sent_none(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why != "none sent":
        monkeypatch.setattr(chain, "ENDED_S", 60)  # gRPC tells of it sooner, however slow this machine is
    statuses = _Statuses()
    server = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0, interceptors=[statuses, Failures()])
    async with raw_client(await server.start()) as client:
        metadata = [("grpc-timeout", "100m")] if why == "deadline" else []
        number, _ = client.open(GET, metadata, end=why == "none sent")
        await asyncio.wait_for(statuses.begun.wait(), 10)
        if why == "too large":
            await client.send(number, message(bytes(1 << 20) + b"\0"))
        if why == "reset":
            client.reset(number)
        if why == "connection lost":
            await client.aclose()
        expected = {"none sent": "INVALID_ARGUMENT", "deadline": "DEADLINE_EXCEEDED"}.get(why, "CANCELLED")
        assert await asyncio.wait_for(statuses.ended.get(), 10) == expected
    await server.drain(1)
