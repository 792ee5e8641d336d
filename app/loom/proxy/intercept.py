"""The intercept lane: both legs end here, and each call is passed on by hyper-h2, changed or answered where asked.

Headers keep their order, duplicates and `-bin` values; trailers-only stays one header block; resets, GOAWAY, PING and
the number of streams allowed are carried across. Frames are cut anew. What the client sent and got is told as in the
relay lane, by a `Relay` that reads the client's side of it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from h2 import events
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError, TooManyStreamsError
from h2.settings import SettingCodes

from app.concurrency.tasks import TaskSet
from app.loom.call import Direction, Ending, Headers
from app.loom.proxy.answer import trailers_only
from app.loom.proxy.control import ControlFilter
from app.loom.proxy.exchange import Exchange
from app.loom.proxy.flow import END_STREAM, Flow
from app.loom.proxy.framing import PREFACE, Budget
from app.loom.proxy.http2 import GOAWAY, as_one_frame, headers_of, make_connection, reset
from app.loom.proxy.interception import Interception
from app.loom.proxy.limits import Limits
from app.loom.proxy.relay import Relay
from app.loom.proxy.status import read_request

_log = logging.getLogger(__name__)


class Interceptor:
    """One client connection. Without a backend, `answer` is what every call gets."""

    def __init__(
        self,
        relay: Relay,
        to_client: Callable[[bytes], None],
        to_backend: Callable[[bytes], None] | None,
        *,
        limits: Limits,
        budget: Budget,
        holds: TaskSet,
        interception: Interception | None = None,
        authority: bytes | None = None,
        answer: Headers = (),
        on_broken: Callable[[Ending, str], None],
    ) -> None:
        """`authority` takes the place of every call's `:authority`; `on_broken` is called with how live calls end, and
        why, where a peer breaks the protocol, once it has been told."""
        self._relay = relay
        self._limits = limits
        self._budget = budget
        self._holds = holds
        self._interception = interception
        self._authority = authority
        self._answer = answer
        self._on_broken = on_broken
        self._to_client, self._to_backend = to_client, to_backend
        self._client = make_connection(limits, client_side=False)
        self._backend = make_connection(limits, client_side=True)
        # Without a backend, Loom is the one that a PING has reached.
        self._client_control = ControlFilter(takes_pings=to_backend is not None, skip=len(PREFACE))
        self._backend_control = ControlFilter(takes_pings=True)
        self._exchanges: dict[int, Exchange] = {}
        self._by_backend: dict[int, Exchange] = {}
        self._touched: set[Exchange] = set()
        self._stuck: set[Exchange] = set()
        self._early = bytearray()
        self._is_started = self._is_asked = self._is_broken = self._has_backend_ended = False
        self._backend_last: int | None = None
        self.on_drained: Callable[[], None] = lambda: None
        """Called once all that came from a backend that has ended has gone on to the client."""
        self.on_started: Callable[[], None] = lambda: None
        """Called once the backend has told its settings: until then the client is not to be read."""
        if to_backend is None:
            self._start()
        else:
            self._backend.initiate_connection()
            self._backend.increment_flow_control_window(limits.intercepted_bytes - 65_535)
            self._flush()

    @property
    def undecided(self) -> int:
        """Calls whose end has not come from the backend."""
        return sum(not exchange.responses.is_decided for exchange in self._exchanges.values())

    @property
    def is_drained(self) -> bool:
        """Whether the client has all that came, of the calls that were answered whole."""
        return all(not exchange.responses.is_decided for exchange in self._exchanges.values())

    def client_bytes(self, data: bytes) -> None:
        """From the client. Before the backend has told its settings, kept."""
        if not self._is_started:
            self._early += data
            return
        self._relay.client_bytes(data)
        data, _, pings = self._client_control.feed(data)  # a client that goes away ends the connection itself
        self._read(self._client, data, self._client_event)
        if pings and self._to_backend is not None:
            self._to_backend(pings)

    def backend_bytes(self, data: bytes) -> None:
        """From the backend."""
        data, goaways, pings = self._backend_control.feed(data)
        self._read(self._backend, data, self._backend_event, goaways)
        if pings and self._is_started:  # else the backend has broken the protocol: SETTINGS come first
            self._to_client(pings)

    def backend_ended(self) -> None:
        """Nothing more comes from it."""
        self._has_backend_ended = True

    def ask_to_go(self) -> None:
        """GOAWAY to the client. What is written to it is whole frames and whole header blocks, so it fits anywhere."""
        if not self._is_asked:
            self._is_asked = True
            if self._is_started:
                self._to_client(GOAWAY)

    def close(self) -> None:
        """The connection is over."""
        self._is_broken = True
        for exchange in self._exchanges.values():
            exchange.drop()
        self._exchanges.clear()
        self._by_backend.clear()
        self._stuck.clear()

    def _start(self) -> None:
        self._is_started = True
        self.on_started()
        streams = self._limits.streams
        if self._to_backend is not None:
            streams = min(streams, self._backend.remote_settings.max_concurrent_streams)
        # The bound is in force once the client has acknowledged it, and not for what it opens before.
        self._client.initiate_connection()
        self._client.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        settings = as_one_frame(self._client.data_to_send())
        self._to_client(settings)
        self._relay.backend_bytes(settings)
        self._client.increment_flow_control_window(self._limits.intercepted_bytes - 65_535)
        self._flush()
        if self._is_asked:
            self._to_client(GOAWAY)
        early, self._early = bytes(self._early), bytearray()
        if early:
            self.client_bytes(early)

    def _read(
        self,
        connection: H2Connection,
        data: bytes,
        on_event: Callable[[events.Event], None],
        goaways: Sequence[bytes] = (),
    ) -> None:
        if self._is_broken:
            return
        try:
            received = connection.receive_data(data)
        except ProtocolError as error:
            is_clients = connection is self._client
            ending = Ending.BROKEN_BY_CLIENT if is_clients else Ending.BROKEN_BY_BACKEND
            side = "client" if is_clients else "backend"
            self._break(ending, f"the {side} broke HTTP/2: {type(error).__name__}: {error}")
            return
        try:
            for event in received:
                on_event(event)
            for payload in goaways:
                self._backend_goaway(payload)
            self._pump()
        except Exception:  # noqa: BLE001 - one connection's error is to end that connection, and nothing else
            _log.exception("an error in the intercept lane")
            self._break(Ending.CUT, "Loom failed")
        else:
            self._flush()

    def _break(self, ending: Ending, why: str) -> None:
        self._flush()
        self._on_broken(ending, why)
        self.close()

    def _flush(self) -> None:
        to_client = self._client.data_to_send()
        if to_client:
            self._to_client(to_client)
            self._relay.backend_bytes(to_client)
        if self._to_backend is not None and (to_backend := self._backend.data_to_send()):
            self._to_backend(to_backend)

    def _pump(self) -> None:
        touched, self._touched = self._touched, set()
        for exchange in touched:
            exchange.requests.pump()
            exchange.responses.pump()
            if exchange.is_over and self._exchanges.get(exchange.stream) is exchange:
                self._forget(exchange)
            elif exchange.requests.is_stuck or exchange.responses.is_stuck:
                self._stuck.add(exchange)
            else:
                self._stuck.discard(exchange)
        if touched and self._has_backend_ended and self.is_drained:
            self.on_drained()

    def _forget(self, exchange: Exchange) -> None:
        self._exchanges.pop(exchange.stream, None)
        self._stuck.discard(exchange)
        if exchange.backend_stream is not None:
            self._by_backend.pop(exchange.backend_stream, None)
        exchange.drop()

    def _client_event(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self._request(event)
        else:
            self._event(event, self._exchanges, lambda exchange: exchange.requests, self._cancelled)

    def _backend_event(self, event: events.Event) -> None:
        if isinstance(event, events.RemoteSettingsChanged):
            self._settings(event)
        elif isinstance(event, events.InformationalResponseReceived | events.ResponseReceived):
            exchange = self._by_backend.get(event.stream_id or 0)
            if exchange is not None:
                self._response(exchange, event)
        else:
            self._event(event, self._by_backend, lambda exchange: exchange.responses, self._reset_by_backend)

    def _event(
        self,
        event: events.Event,
        exchanges: dict[int, Exchange],
        flow_of: Callable[[Exchange], Flow],
        on_reset: Callable[[Exchange, int], None],
    ) -> None:
        stream = getattr(event, "stream_id", None)
        if isinstance(event, events.RemoteSettingsChanged) or (isinstance(event, events.WindowUpdated) and not stream):
            self._touched |= self._stuck
            return
        exchange = exchanges.get(stream or 0)
        if exchange is None:
            if isinstance(event, events.DataReceived):  # of a call that is over
                connection = self._client if exchanges is self._exchanges else self._backend
                connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            return
        self._touched.add(exchange)
        flow = flow_of(exchange)
        if isinstance(event, events.DataReceived):
            flow.take(event.data or b"", event.flow_controlled_length or 0)
            if event.stream_ended is not None:
                flow.end = END_STREAM
        elif isinstance(event, events.TrailersReceived):
            flow.end = headers_of(event.headers)
        elif isinstance(event, events.StreamEnded):
            flow.end = END_STREAM if flow.end is None else flow.end
        elif isinstance(event, events.StreamReset):
            on_reset(exchange, int(event.error_code or 0))

    def _request(self, event: events.RequestReceived) -> None:
        stream, headers = event.stream_id or 0, headers_of(event.headers)
        if self._answer:
            self._reply(stream, self._answer)
            self.ask_to_go()  # for the next call there may be a backend
            return
        if self._is_refused():
            self._refuse_stream(stream)
            return
        asked = None
        if self._interception is not None:
            asked = self._interception.for_call(self._relay.call_number(stream), read_request(headers).method)
        requests = Flow(self._client, stream, self._backend)
        exchange = Exchange(stream, requests, Flow(self._backend, None, self._client), asked)
        self._exchanges[stream] = exchange
        if event.stream_ended is not None:
            requests.end = END_STREAM
        hold = None if asked is None else asked.hold
        if hold is not None:
            exchange.hold = self._holds.start(self._hold(exchange, headers, hold))
        if exchange.hold is None:
            self._open(exchange, headers)

    async def _hold(self, exchange: Exchange, headers: Headers, hold: Callable[[], Any]) -> None:
        await hold()
        exchange.hold = None  # from here on it is not to be cancelled
        try:
            if self._is_refused():
                self._refuse(exchange)
            else:
                self._open(exchange, headers)
            self._pump()
        except ProtocolError as error:
            self._break(Ending.CUT, f"Loom failed: a call that was held could not go on: {error}")
        else:
            self._flush()

    def _open(self, exchange: Exchange, headers: Headers) -> None:
        """The call goes on to the backend, or is aborted."""
        asked = exchange.asked
        if asked is not None and asked.abort is not None:
            self._forget(exchange)
            self._reply(exchange.stream, trailers_only(*asked.abort))
            return
        headers = self._changed(exchange, Direction.REQUEST, headers)
        if self._authority is not None:
            headers = tuple((name, self._authority if name == b":authority" else value) for name, value in headers)
        stream = self._backend.get_next_available_stream_id()
        is_end = exchange.requests.end == END_STREAM and exchange.requests.is_empty
        try:
            self._backend.send_headers(stream, headers, end_stream=is_end)
        except TooManyStreamsError:  # one that has ended for the client is still under way behind
            self._refuse(exchange)
            return
        exchange.backend_stream = stream
        self._by_backend[stream] = exchange
        exchange.responses.come_from(stream)
        exchange.requests.open_to(stream, is_over=is_end)
        self._touched.add(exchange)

    def _response(
        self, exchange: Exchange, event: events.InformationalResponseReceived | events.ResponseReceived
    ) -> None:
        headers = headers_of(event.headers)
        is_end = isinstance(event, events.ResponseReceived) and event.stream_ended is not None
        if isinstance(event, events.ResponseReceived):
            headers = self._changed(exchange, Direction.RESPONSE, headers)
        self._touched.add(exchange)
        self._client.send_headers(exchange.stream, headers, end_stream=is_end)
        if is_end:
            exchange.responses.end = END_STREAM
        if isinstance(event, events.ResponseReceived):
            exchange.responses.open_to(exchange.stream, is_over=is_end)

    def _cancelled(self, exchange: Exchange, code: int) -> None:
        self._forget(exchange)
        if exchange.backend_stream is not None:
            reset(self._backend, exchange.backend_stream, code)

    def _reset_by_backend(self, exchange: Exchange, code: int) -> None:
        exchange.requests.drop()
        if exchange.responses.is_open and not exchange.responses.is_over:
            exchange.responses.reset_after(code)  # what came before it goes on before it
        else:
            self._forget(exchange)
            reset(self._client, exchange.stream, code)

    def _settings(self, event: events.RemoteSettingsChanged) -> None:
        if not self._is_started:
            self._start()
        elif SettingCodes.MAX_CONCURRENT_STREAMS in event.changed_settings:
            streams = min(self._limits.streams, self._backend.remote_settings.max_concurrent_streams)
            self._client.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        self._touched |= self._stuck

    def _backend_goaway(self, payload: bytes) -> None:
        last = int.from_bytes(payload[:4]) & 0x7FFFFFFF
        self._backend_last = last
        self.ask_to_go()
        for exchange in list(self._exchanges.values()):
            if exchange.backend_stream is not None and exchange.backend_stream > last:
                self._refuse(exchange)

    def _is_refused(self) -> bool:
        return self._has_backend_ended or (
            self._backend_last is not None and self._backend.get_next_available_stream_id() > self._backend_last
        )

    def _refuse(self, exchange: Exchange) -> None:
        """Not processed: clients may send it again elsewhere."""
        self._forget(exchange)
        self._refuse_stream(exchange.stream)

    def _refuse_stream(self, stream: int) -> None:
        self._relay.ends_by(stream, Ending.REFUSED)
        reset(self._client, stream, ErrorCodes.REFUSED_STREAM)

    def _reply(self, stream: int, headers: Headers) -> None:
        self._relay.ends_by(stream, Ending.BY_LOOM)
        # It may have been cancelled right behind: then hyper-h2 has forgotten it, and takes it for one to be opened.
        with contextlib.suppress(ProtocolError):
            self._client.send_headers(stream, headers, end_stream=True)
        reset(self._client, stream, ErrorCodes.NO_ERROR)  # the rest of the request, if there is one, is not wanted

    def _changed(self, exchange: Exchange, direction: Direction, headers: Headers) -> Headers:
        return exchange.changed(direction, headers, max_bytes=self._limits.rewritten_bytes, budget=self._budget)
