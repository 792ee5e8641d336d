"""The HTTP/1.1 connection: bounds on what comes before a request is complete, and a place in line where many come."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.api.http import problems
from app.api.http.arrivals import ARRIVED, Arrivals
from app.concurrency.unsent import unsent_bytes

MAX_HEAD_BYTES = 65_536
"""Largest head of a request, give or take one read from the socket; the parser by itself knows no bound."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's connection, and besides:

    - A head, or trailers, of more than `MAX_HEAD_BYTES` get 431, where uvicorn would gather them without end.
    - `timeout_keep_alive` runs from the connection's beginning, or from the last answer, until the next request's head
      is complete, where uvicorn stops it at the first byte. Past it the connection is closed; a reader that is slow has
      the time again from when it has taken the answer.
    - An answer that its reader takes nothing of for as long is given up, and the connection with it.
    - What can't be parsed gets its 400 as problem+json, and never in place of the answer to an earlier request.
    - The request being answered hears of the connection's end; uvicorn tells it to the one that was read last.
    - Where very many requests begin at once, one that is no hit waits in the line of `arrivals`. Nothing more is read
      from its connection meanwhile, so that what comes later, the connection's end included, keeps its order.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._arrivals = arrivals
        self._place: asyncio.Future[None] | None = None
        self._waiting = b""
        self._arrived_at: float | None = None
        self._running: RequestResponseCycle | None = None
        self._unparsed_bytes = 0
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._leave_line()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent_bytes = unsent_bytes(self.transport)
        self._arm()

    def resume_writing(self) -> None:
        super().resume_writing()
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            self._disarm()

    def data_received(self, data: bytes) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first head
        if (
            (cycle is None or cycle.response_complete)
            and self._arrived_at is None  # else its turn has come
            and not self._arrivals.admit(data)
            and len(data) <= MAX_HEAD_BYTES
        ):
            self._line_up(data)
            return
        self._unparsed_bytes += len(data)  # until the parser makes something of it
        super().data_received(data)
        if self._unparsed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", f"the head has more than the {MAX_HEAD_BYTES} bytes that are taken")

    def shutdown(self) -> None:
        self._parse_waiting()  # it came before the end
        super().shutdown()

    def _line_up(self, data: bytes) -> None:
        self._waiting = data
        self._arrived_at = time.perf_counter()
        self.transport.pause_reading()
        self._place = self._arrivals.line_up()
        self._place.add_done_callback(self._called)

    def _called(self, place: asyncio.Future[None]) -> None:
        if place is self._place:
            self._parse_waiting()

    def _leave_line(self) -> bytes:
        """What has waited; nothing where it did not wait."""
        if self._place is None:
            return b""
        self._place.cancel()
        self._place = None
        data, self._waiting = self._waiting, b""
        return data

    def _parse_waiting(self) -> None:
        """Parse now what waits, if it does."""
        data = self._leave_line()
        if data:
            self.transport.resume_reading()
            self.data_received(data)
            self._arrived_at = None

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        self._disarm()
        if self._arrived_at is not None:
            self.scope["state"][ARRIVED] = self._arrived_at
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unsent_bytes = 0
        if self.timeout_keep_alive_task is not None:
            self._disarm()
        if self.pipeline:
            self._running = self.pipeline[-1][0]  # the next
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm()

    def timeout_keep_alive_handler(self) -> None:
        fired = self.timeout_keep_alive_task
        self._parse_waiting()
        if self.timeout_keep_alive_task is not fired:
            return  # the head was there, and only waited
        unsent = unsent_bytes(self.transport)
        if unsent != self._unsent_bytes:  # the reader has taken something since
            self._unsent_bytes = unsent
            self._arm()
        elif unsent:
            self.transport.abort()
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it says less than the problem does
        self._refuse(400, "malformed_request", "this is no HTTP/1.1 request that can be read")

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn calls this at the first byte; here the time goes on to run."""

    def _unsupported_upgrade_warning(self) -> None:
        """HTTP/1.1 goes on, as it may (RFC 9110, 7.8): nothing to warn of."""

    def _disarm(self) -> None:
        super()._unset_keepalive_if_required()

    def _arm(self) -> None:
        self._disarm()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer, and close. Where an earlier request waits for its answer, it gets that, and this one gets none."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # there is none before the first head
        if cycle is not None and not cycle.response_complete and (cycle.response_started or not cycle.more_body):
            cycle.keep_alive = False
            self.flow.pause_reading()
            return
        response = problems.problem(status, code, detail, headers={"Connection": "close"})
        head = [b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())]
        for name, value in (*self.server_state.default_headers, *response.raw_headers):
            head += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*head, b"\r\n", bytes(response.body)]))
        self.transport.close()
        self._arm()
