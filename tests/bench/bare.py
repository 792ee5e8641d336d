"""The baseline of HTTP: a bare ASGI callable that sends fixed bytes. Ends when its standard input does.

It reads one line of JSON, `headers` and base64 `body`, and prints the port that it listens on.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
import threading

import uvicorn
import uvloop
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope


def main() -> None:
    """Serve until standard input ends."""
    document = json.loads(sys.stdin.readline())
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in document["headers"]]
    body = base64.b64decode(document["body"])

    async def application(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    # As app/cli/server.py configures it.
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = uvicorn.Server(config)

    def end_with_stdin() -> None:
        sys.stdin.read()
        server.should_exit = True

    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=end_with_stdin, daemon=True).start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve([listener]))


if __name__ == "__main__":
    main()
