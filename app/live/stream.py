"""Server-sent events as a response that ends with its client, or with its subscriber."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.http.disconnect import ClientDisconnectedError, while_connected
from app.live.hub import Subscriber

HEARTBEAT_S: Final = 10.0
"""A stream that has nothing to tell says so that often, so that both ends notice when the other is gone."""
RETRY: Final = b"retry: 1000\n\n"
"""How long, in milliseconds, a browser waits until it comes again."""


class EventStream(Response):
    """What `subscriber` is told, until its end. `leave` is called however the stream ends.

    How long a client that reads nothing is waited for is the connection's affair (`BoundedHttpProtocol`).
    """

    media_type = "text/event-stream"

    def __init__(self, subscriber: Subscriber, leave: Callable[[Subscriber], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._subscriber = subscriber
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        try:
            await while_connected(receive, self._send_all(send))
        except ClientDisconnectedError:
            return
        finally:
            self._leave(self._subscriber)

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        chunk: bytes | None = RETRY
        while chunk is not None:
            await send({"type": "http.response.body", "body": chunk or b":\n\n", "more_body": True})
            chunk = await self._subscriber.next(HEARTBEAT_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
