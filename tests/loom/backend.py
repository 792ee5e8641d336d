"""A gRPC server of all four stream kinds, on bytes, that remembers what it saw of each call."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
SIZES = re.compile(rb"sizes ([0-9 ]*)")


@dataclass
class Seen:
    """What the backend saw of a call."""

    method: str
    metadata: list[tuple[str, str | bytes]]
    time_remaining: float | None
    requests: list[bytes] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Backend(grpc.GenericRpcHandler):  # type: ignore[misc]
    """`/test.Interop/…`. A request `sizes 3 5` asks for responses of 3 and of 5 bytes; metadata asks for a status."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            "/test.Interop/Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "/test.Interop/ClientStream": grpc.stream_unary_rpc_method_handler(self._client_stream),
            "/test.Interop/ServerStream": grpc.unary_stream_rpc_method_handler(self._server_stream),
            "/test.Interop/Bidi": grpc.stream_stream_rpc_method_handler(self._bidi),
            "/test.Interop/Sleep": grpc.unary_unary_rpc_method_handler(self._sleep),
            "/test.Interop/Held": grpc.unary_unary_rpc_method_handler(self._held),
        }.get(details.method)

    async def _unary(self, request: bytes, context: Any) -> bytes:
        seen = await self._begin("/test.Interop/Unary", context)
        seen.requests.append(request)
        await self._end(context)
        return b"".join(_responses(request)) or request

    async def _client_stream(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        seen = await self._begin("/test.Interop/ClientStream", context)
        async for request in requests:
            seen.requests.append(request)
            self.arrived.set()
        await self._end(context)
        return str(sum(map(len, seen.requests))).encode()

    async def _server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        seen = await self._begin("/test.Interop/ServerStream", context)
        seen.requests.append(request)
        for response in _responses(request):
            yield response
        await self._end(context)

    async def _bidi(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        seen = await self._begin("/test.Interop/Bidi", context)
        async for request in requests:
            seen.requests.append(request)
            for response in _responses(request):
                yield response
        await self._end(context)

    async def _sleep(self, request: bytes, context: Any) -> bytes:
        seen = await self._begin("/test.Interop/Sleep", context)
        seen.requests.append(request)
        self.arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def _held(self, request: bytes, context: Any) -> bytes:
        seen = await self._begin("/test.Interop/Held", context)
        seen.requests.append(request)
        self.arrived.set()
        await self.go_on.wait()
        return request

    async def _begin(self, method: str, context: Any) -> Seen:
        metadata = [(str(key), value) for key, value in context.invocation_metadata()]
        seen = Seen(method, metadata, context.time_remaining())
        self.seen.append(seen)
        context.add_done_callback(lambda _: seen.done.set())
        asked = dict(metadata)
        if ECHO_INITIAL in asked:
            await context.send_initial_metadata(((ECHO_INITIAL, asked[ECHO_INITIAL]),))
        if ECHO_TRAILING in asked:
            context.set_trailing_metadata(((ECHO_TRAILING, asked[ECHO_TRAILING]),))
        return seen

    async def _end(self, context: Any) -> None:
        asked = dict(context.invocation_metadata())
        if "x-status" in asked:
            code = next(code for code in grpc.StatusCode if code.value[0] == int(asked["x-status"]))
            message = asked.get("x-message-bin", b"")
            context.set_trailing_metadata((("x-why", "asked for"),))
            await context.abort(code, message.decode())


def _responses(request: bytes) -> list[bytes]:
    match = SIZES.fullmatch(request)
    return [b"r" * int(size) for size in match[1].split()] if match else []
