"""Reads over gRPC, each reader with a connection of its own, so that figures can be compared with those over HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from app.client.channel import open_channel
from app.client.endpoint import Endpoint
from app.loadtest.errors import RequestError
from app.loadtest.reader import SOURCES, Reply
from app.proto.template.v1 import template_pb2 as pb
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub

_SOURCES = {number: name.removeprefix("SOURCE_").lower() for name, number in pb.Source.items()}


class GrpcReader:
    """Reads templates from a target. Implements `Reader`; belongs to the event loop in which it is opened.

    `timeout_s` bounds connecting, and each read. A read that failed is not made again.
    """

    def __init__(self, target: str, timeout_s: float) -> None:
        self._endpoint = Endpoint(target, retries=False)
        self._timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    async def open(self) -> None:
        channel = self._channel = open_channel(self._endpoint, own_connections=True)
        self._call = TemplateServiceStub(channel).GetTemplateDetails  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout_s):
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise RequestError("cannot connect")
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise RequestError("timeout") from None

    async def read(self, key: int) -> Reply:
        try:
            answer = await self._call(pb.GetTemplateDetailsRequest(id=key), timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            return Reply(time.monotonic(), 0, "", f"status {error.code().name}")
        end = time.monotonic()
        source = _SOURCES.get(answer.source, "")
        return Reply(end, 200, source, _fault(answer, source, key))

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


def _fault(answer: pb.GetTemplateDetailsResponse, source: str, key: int) -> str:
    if source not in SOURCES:
        return "no known source"
    return "" if answer.template.id == key else "another template's body"
