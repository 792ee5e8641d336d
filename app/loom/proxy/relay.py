"""What passes over one connection, read in passing: bytes of either direction in, the events of its calls out. No I/O.

It fails open. Where a header block can't be decoded, or whoever listens raises, the connection is blinded: its live
calls end as unseen, no more are told of, and only frame boundaries are still kept. Bytes are not its business: they
have gone on already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hpack import HPACKError, OversizedHeaderListError

from app.concurrency.clock import Clock, monotonic, wall
from app.loom.call import (
    Answered,
    Direction,
    Ended,
    Ending,
    HalfClosed,
    Headers,
    Message,
    Started,
    Status,
)
from app.loom.proxy import framing
from app.loom.proxy.events import Blindness, ProxyEvents
from app.loom.proxy.framing import Budget, Frame, FrameParser, MessageParser
from app.loom.proxy.headers import BlockAssembler, BlockError, HeaderDecoder
from app.loom.proxy.limits import Limits
from app.loom.proxy.status import HTTP_OK, RequestHead, ResponseHead, of_http, of_reset, read_request, read_response

_log = logging.getLogger(__name__)

_LAST_STREAM: Final = 0x7FFFFFFF
_HEADER_TABLE_SIZE: Final = 0x1
_SETTING_BYTES: Final = 6
_new = tuple.__new__  # what a named tuple's own constructor calls, after some work that costs more


class Peer(NamedTuple):
    """Who is at the client's end."""

    connection: int
    """Unique in this process."""
    address: str


class _Side:
    """One direction of a call."""

    __slots__ = ("direction", "is_readable", "messages", "parser")

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.is_readable = False
        """Whether its content is gRPC messages, as its headers say, and they could be told apart so far."""
        self.messages = 0
        self.parser: MessageParser | None = None


class _Call:
    """A live call."""

    __slots__ = (
        "http_status",
        "is_half_closed",
        "known_ending",
        "number",
        "requests",
        "responses",
        "started_at",
        "timeout_s",
    )

    def __init__(self, number: int, started_at: float, timeout_s: float | None) -> None:
        self.number = number
        self.started_at = started_at
        self.timeout_s = timeout_s
        self.is_half_closed = False
        self.known_ending: Ending | None = None
        self.http_status: int | None = None
        self.requests = _Side(Direction.REQUEST)
        self.responses = _Side(Direction.RESPONSE)


class Relay:
    """Both directions of one connection. `calls` numbers the calls of the process; `budget` is shared by all relays."""

    def __init__(
        self,
        peer: Peer,
        events: ProxyEvents,
        *,
        limits: Limits,
        calls: Iterator[int],
        budget: Budget,
        on_blinded: Callable[[], None] = lambda: None,
        clock: Clock = monotonic,
        wall_clock: Clock = wall,
    ) -> None:
        self.is_blinded = False
        self.is_greeted = False
        """Whether the backend's first frame has passed, its SETTINGS: no frame to the client may precede it."""
        self.saw_all = True
        """Whether every call was told of until now."""
        self.backend_goaway: int | None = None
        """The last stream that the backend's GOAWAY allows, once there was one."""
        self._peer = peer
        self._events = events
        self._tell = events.call
        self._limits = limits
        self._calls = calls
        self._budget = budget
        self._on_blinded = on_blinded
        self._clock = clock
        self._wall = wall_clock
        self._keep_bytes = limits.message_bytes
        self._live: dict[int, _Call] = {}
        self._last_stream = 0
        payload = limits.header_block_bytes
        self._client = FrameParser(max_payload_bytes=payload, skip=len(framing.PREFACE))
        self._backend = FrameParser(max_payload_bytes=payload)
        sizes = {"max_list_bytes": limits.header_block_bytes, "max_table_bytes": limits.header_table_bytes}
        self._requests: HeaderDecoder[RequestHead] = HeaderDecoder(read_request, **sizes)
        self._responses: HeaderDecoder[ResponseHead] = HeaderDecoder(read_response, **sizes)
        self._client_blocks = BlockAssembler(limits.header_block_bytes)
        self._backend_blocks = BlockAssembler(limits.header_block_bytes)

    @property
    def live(self) -> int:
        """Calls under way that are told of."""
        return len(self._live)

    def call_number(self, stream: int) -> int | None:
        """Of a live call that is told of."""
        call = self._live.get(stream)
        return None if call is None else call.number

    def ends_by(self, stream: int, ending: Ending) -> None:
        """The end that comes next on this stream is Loom's doing, and this is why."""
        call = self._live.get(stream)
        if call is not None:
            call.known_ending = ending

    @property
    def boundary(self) -> int | None:
        """Where in the backend's last bytes a frame to the client may be put in; `None` where it may not."""
        return self._backend.boundary

    @property
    def at_boundary(self) -> bool:
        """Whether a frame to the client may be put in after the backend's last bytes."""
        return self._backend.at_boundary

    def client_bytes(self, data: bytes, at: float | None = None) -> None:
        """Bytes from the client have passed, `at` that time or now."""
        frames = self._client.feed(data)
        if frames and not self.is_blinded:
            self._read(frames, self._client_frame, at)

    def backend_bytes(self, data: bytes, at: float | None = None) -> None:
        """Bytes from the backend have passed, `at` that time or now."""
        frames = self._backend.feed(data)
        if not self.is_greeted:
            self.is_greeted = self._backend.boundary is not None
        if frames and not self.is_blinded:
            self._read(frames, self._backend_frame, at)

    def end(self, ending: Ending, why: str = "") -> None:
        """The connection is over, and with it every live call: lost on one side, or ended by Loom, which says why."""
        status = Status.CANCELLED if ending is Ending.CLIENT_LOST else Status.UNAVAILABLE
        self._end_all(ending, status, why)

    def _read(self, frames: list[Frame], read: Callable[[Frame, float], None], passed_at: float | None) -> None:
        at = self._clock() if passed_at is None else passed_at
        try:
            for frame in frames:
                read(frame, at)
        except BlockError as error:
            self._blind(error.why, str(error))
        except OversizedHeaderListError as error:
            self._blind("header_size", str(error))
        except HPACKError as error:
            self._blind("hpack", str(error))
        except Exception:  # noqa: BLE001 - whatever the tap does, traffic goes on
            _log.exception("connection %d from %s: its events met an error", *self._peer)
            self._blind("tap", "an error in what listens to its events")

    def _blind(self, why: Blindness, detail: str) -> None:
        self.is_blinded = True
        self.saw_all = False
        _log.warning("connection %d from %s can no longer be decoded: %s", *self._peer, detail)
        self._events.blinded(why)
        self._end_all(Ending.UNSEEN, None)
        self._on_blinded()

    def _end_all(self, ending: Ending, status: Status | None, message: str = "") -> None:
        at = self._clock()
        try:
            for stream in list(self._live):
                self._end(stream, at, ending, status, message=message)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("connection %d from %s: its events met an error", *self._peer)
            for call in self._live.values():
                _close(call)
            self._live.clear()

    def _client_frame(self, frame: Frame, at: float) -> None:
        kind, flags, stream, payload, is_last = frame
        if kind in _BLOCK_KINDS or self._client_blocks.is_open:
            if kind == framing.HEADERS and flags & framing.END_HEADERS and not self._client_blocks.is_open and payload:
                headers, head = self._requests.decode(payload)
                self._request_headers(stream, flags, headers, head, at)
                return
            block = self._client_blocks.add(frame)
            if block is not None:
                headers, head = self._requests.decode(block.payload)
                if block.kind == framing.HEADERS:
                    self._request_headers(block.stream, block.flags, headers, head, at)
        elif kind == framing.DATA:
            call = self._live.get(stream)
            if call is not None:
                if payload and call.requests.is_readable:
                    self._data(call, call.requests, payload, at)
                if is_last and flags & framing.END_STREAM:
                    self._half_close(call, at)
        elif kind == framing.RST_STREAM:
            if stream in self._live:
                self._reset(stream, Ending.RESET_BY_CLIENT, payload, at)
        elif kind == framing.SETTINGS:
            self._settings(flags, payload, self._responses)

    def _backend_frame(self, frame: Frame, at: float) -> None:
        kind, flags, stream, payload, is_last = frame
        if kind in _BLOCK_KINDS or self._backend_blocks.is_open:
            if kind == framing.HEADERS and flags & framing.END_HEADERS and not self._backend_blocks.is_open and payload:
                headers, head = self._responses.decode(payload)
                self._response_headers(stream, flags, headers, head, at)
                return
            block = self._backend_blocks.add(frame)
            if block is not None:
                headers, head = self._responses.decode(block.payload)
                if block.kind == framing.HEADERS:
                    self._response_headers(block.stream, block.flags, headers, head, at)
        elif kind == framing.DATA:
            call = self._live.get(stream)
            if call is not None:
                if payload and call.responses.is_readable:
                    self._data(call, call.responses, payload, at)
                if is_last and flags & framing.END_STREAM:
                    self._end(stream, at, Ending.NO_TRAILERS, Status.UNKNOWN)
        elif kind == framing.RST_STREAM:
            if stream in self._live:
                self._reset(stream, Ending.RESET_BY_BACKEND, payload, at)
        elif kind == framing.SETTINGS:
            self._settings(flags, payload, self._requests)
        elif kind == framing.GOAWAY:
            self._goaway(payload, at)

    def _request_headers(self, stream: int, flags: int, headers: Headers, head: RequestHead, at: float) -> None:
        call = self._live.get(stream)
        if call is None:
            # What comes for a stream that is over is no new one: ids only rise.
            if stream <= self._last_stream or not stream & 1:
                return
            self._last_stream = stream
            call = self._start(stream, headers, head, at)
            if call is None:
                return
        if flags & framing.END_STREAM:
            self._half_close(call, at)

    def _start(self, stream: int, headers: Headers, head: RequestHead, at: float) -> _Call | None:
        if len(self._live) >= self._limits.streams:
            self.saw_all = False
            self._events.untracked()
            return None
        call = _Call(next(self._calls), at, head.timeout_s)
        call.requests.is_readable = head.is_grpc
        self._live[stream] = call
        connection, peer = self._peer
        self._tell(
            Started(
                call.number,
                at,
                self._wall() - (self._clock() - at),
                connection,
                stream,
                peer,
                head.method,
                head.authority,
                headers,
                head.timeout_s,
            )
        )
        if self.backend_goaway is not None and stream > self.backend_goaway:
            self._end(stream, at, Ending.REFUSED, Status.UNAVAILABLE)
            return None
        return call

    def _response_headers(self, stream: int, flags: int, headers: Headers, head: ResponseHead, at: float) -> None:
        call = self._live.get(stream)
        if call is None:
            return
        is_end = flags & framing.END_STREAM
        if call.http_status is not None:
            if is_end:
                self._end_by_headers(stream, call, Ending.TRAILERS, headers, head, at)
        elif is_end:
            call.http_status = head.http_status
            self._end_by_headers(stream, call, call.known_ending or Ending.TRAILERS_ONLY, headers, head, at)
        elif head.http_status is None or head.http_status >= HTTP_OK:  # those below only announce the real one
            call.http_status = head.http_status or HTTP_OK
            call.responses.is_readable = head.is_grpc
            self._tell(_new(Answered, (call.number, at, headers)))

    def _end_by_headers(
        self, stream: int, call: _Call, ending: Ending, headers: Headers, head: ResponseHead, at: float
    ) -> None:
        status, message = head.status, head.message
        if status is None:
            http_status = call.http_status or HTTP_OK
            is_http_ok = http_status == HTTP_OK
            status = Status.UNKNOWN if is_http_ok else of_http(http_status)
            message = message or ("no grpc-status in the trailers" if is_http_ok else f"HTTP status {http_status}")
        self._end(stream, at, ending, status, message=message, trailers=headers)

    def _data(self, call: _Call, side: _Side, payload: bytes, at: float) -> None:
        """A piece of one direction's messages."""
        parser = side.parser
        if parser is None or not parser.is_partial:
            # Most messages are sent as one frame of DATA each, and are told of without more ado.
            whole = framing.whole_message(payload)
            if whole is not None:
                is_compressed, size = whole
                self._message(
                    call,
                    side,
                    is_compressed,
                    size,
                    payload[framing.PREFIX_BYTES : framing.PREFIX_BYTES + self._keep_bytes],
                    at,
                )
                return
        if parser is None:
            parser = side.parser = MessageParser(self._limits.message_bytes, self._budget)
        for is_compressed, size, data in parser.feed(payload):
            self._message(call, side, is_compressed, size, data, at)
        if parser.is_broken:
            side.is_readable = False
            self._events.unreadable()

    def _message(self, call: _Call, side: _Side, is_compressed: bool, size: int, data: bytes, at: float) -> None:
        position = side.messages
        side.messages = position + 1
        self._tell(_new(Message, (call.number, at, side.direction, position, is_compressed, data, size)))

    def _half_close(self, call: _Call, at: float) -> None:
        if not call.is_half_closed:
            call.is_half_closed = True
            self._tell(_new(HalfClosed, (call.number, at)))

    def _reset(self, stream: int, ending: Ending, payload: bytes | None, at: float) -> None:
        call = self._live[stream]
        code = int.from_bytes(payload[:4]) if payload else 0
        if ending is Ending.RESET_BY_BACKEND:
            ending = call.known_ending or ending
        if ending is Ending.RESET_BY_CLIENT and call.http_status not in (None, HTTP_OK):
            # It can't take the answer, and its status is what it makes of that.
            status = of_http(call.http_status or HTTP_OK)
        else:
            status = of_reset(code, at - call.started_at, call.timeout_s)
        message = "the client's deadline was over" if status is Status.DEADLINE_EXCEEDED else ""
        self._end(stream, at, ending, status, message=message, reset_code=code)

    def _settings(
        self, flags: int, payload: bytes | None, decoder: HeaderDecoder[RequestHead] | HeaderDecoder[ResponseHead]
    ) -> None:
        if flags & framing.ACK or not payload:
            return
        for start in range(0, len(payload) - _SETTING_BYTES + 1, _SETTING_BYTES):
            if int.from_bytes(payload[start : start + 2]) == _HEADER_TABLE_SIZE:
                decoder.allow_table(int.from_bytes(payload[start + 2 : start + _SETTING_BYTES]))

    def _goaway(self, payload: bytes | None, at: float) -> None:
        if payload is None or len(payload) < 8:
            return
        last, code = int.from_bytes(payload[:4]) & _LAST_STREAM, int.from_bytes(payload[4:8])
        self.backend_goaway = last
        for stream in [stream for stream in self._live if stream > last]:
            self._end(stream, at, Ending.REFUSED, Status.UNAVAILABLE, reset_code=code)

    def _end(
        self,
        stream: int,
        at: float,
        ending: Ending,
        status: Status | None,
        *,
        message: str = "",
        trailers: Headers = (),
        reset_code: int | None = None,
    ) -> None:
        call = self._live.pop(stream)
        _close(call)
        if not (message or trailers):
            message = _IN_WORDS[ending]
        self._tell(
            Ended(
                call.number,
                at,
                ending,
                status,
                message,
                trailers,
                call.http_status,
                reset_code,
                call.requests.messages,
                call.responses.messages,
            )
        )


def _close(call: _Call) -> None:
    for side in (call.requests, call.responses):
        if side.parser is not None:
            side.parser.close()


_BLOCK_KINDS: Final = frozenset({framing.HEADERS, framing.PUSH_PROMISE, framing.CONTINUATION})
_IN_WORDS: Final = {
    Ending.NO_TRAILERS: "the backend ended the stream without trailers",
    Ending.RESET_BY_CLIENT: "the client reset the stream",
    Ending.RESET_BY_BACKEND: "the backend reset the stream",
    Ending.REFUSED: "the backend is going away and does not process this stream",
    Ending.CLIENT_LOST: "the client's connection ended",
    Ending.BACKEND_LOST: "the backend's connection ended",
    Ending.BROKEN_BY_CLIENT: "the client broke HTTP/2",
    Ending.BROKEN_BY_BACKEND: "the backend broke HTTP/2",
    Ending.CUT: "Loom stopped before the call ended",
    Ending.UNSEEN: "the connection could no longer be decoded",
}
