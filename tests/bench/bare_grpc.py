"""The baseline of gRPC: a bare grpc.aio handler that returns fixed bytes. Ends when its standard input does.

It reads one line of JSON, `method` and base64 `message`, and prints the port that it listens on.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

import grpc
import uvloop


async def serve(method: str, message: bytes) -> None:
    """Answers `method`, such as `/package.Service/Method`, with `message`, until standard input ends."""

    async def answer(_request: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return message

    _, service, name = method.split("/")
    handlers = {name: grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    document = json.loads(sys.stdin.readline())
    uvloop.run(serve(document["method"], base64.b64decode(document["message"])))
