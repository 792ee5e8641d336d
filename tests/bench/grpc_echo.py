"""`python -m tests.bench.grpc_echo`: a gRPC server that echoes, or streams so many messages as it is asked for.

Prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

UNARY = "/bench.Echo/Unary"
STREAM = "/bench.Echo/Stream"
LARGE = "/bench.Echo/Large"
MESSAGE = b"m" * 100
LARGE_MESSAGE = b"m" * 65_536


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            UNARY: grpc.unary_unary_rpc_method_handler(_echo),
            STREAM: grpc.unary_stream_rpc_method_handler(_stream),
            LARGE: grpc.unary_stream_rpc_method_handler(_large),
        }.get(details.method)


async def _echo(request: bytes, _: Any) -> bytes:
    return request


async def _stream(request: bytes, _: Any) -> AsyncIterator[bytes]:
    for _number in range(int(request)):
        yield MESSAGE


async def _large(request: bytes, _: Any) -> AsyncIterator[bytes]:
    for _number in range(int(request)):
        yield LARGE_MESSAGE


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve())
