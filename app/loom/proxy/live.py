"""The live calls of one connection: what headers, data and resets on their streams mean, told as events."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from app.concurrency.clock import Clock
from app.loom.call import Answered, Direction, Ended, Ending, HalfClosed, Headers, Message, Started, Status
from app.loom.proxy.events import ProxyEvents
from app.loom.proxy.framing import PREFIX_BYTES, Budget, MessageParser
from app.loom.proxy.limits import Limits
from app.loom.proxy.status import HTTP_OK, RequestHead, ResponseHead, of_http, of_reset

_prefix = Struct(">BL").unpack_from
_TRAILERS: Final = Ending.TRAILERS  # looked up on its class, each member costs as much as a call
_new = tuple.__new__  # what a named tuple's own constructor calls, after some work that costs more


class Peer(NamedTuple):
    """Who is at the client's end."""

    connection: int
    """Unique in this process."""
    address: str


# The defaults of these two are the classes': to set each for each call would cost more than all that is done with it.


class _Side:
    """One direction of a call."""

    direction = Direction.REQUEST
    is_readable = False
    """Whether its content is gRPC messages, as its headers say, and they could be told apart so far."""
    messages = 0
    parser: MessageParser | None = None


class _Answer(_Side):
    direction = Direction.RESPONSE


class _Call:
    """A live call."""

    is_half_closed = False
    known_ending: Ending | None = None
    http_status: int | None = None

    def __init__(self, number: int, started_at: float, timeout_s: float | None) -> None:
        self.number = number
        self.started_at = started_at
        self.timeout_s = timeout_s
        self.requests = _Side()
        self.responses = _Answer()


class LiveCalls:
    """By stream. `numbers` numbers the calls of the process; `budget` is shared by all connections."""

    def __init__(
        self,
        peer: Peer,
        events: ProxyEvents,
        *,
        limits: Limits,
        numbers: Iterator[int],
        budget: Budget,
        clock: Clock,
        wall_clock: Clock,
    ) -> None:
        self.saw_all = True
        """Whether every call was told of until now."""
        self.last_allowed: int | None = None
        """The last stream that the backend's GOAWAY allows, once there was one."""
        self._peer = peer
        self._events = events
        self._tell = events.call
        self._limits = limits
        self._numbers = numbers
        self._budget = budget
        self._clock = clock
        self._wall = wall_clock
        self._keep_to = PREFIX_BYTES + limits.message_bytes
        self._live: dict[int, _Call] = {}
        self._last_stream = 0

    def __len__(self) -> int:
        return len(self._live)

    def number(self, stream: int) -> int | None:
        """Of a live call that is told of."""
        call = self._live.get(stream)
        return None if call is None else call.number

    def ends_by(self, stream: int, ending: Ending) -> None:
        """The end that comes next on this stream is Loom's doing, and this is why."""
        call = self._live.get(stream)
        if call is not None:
            call.known_ending = ending

    def asked(self, stream: int, headers: Headers, head: RequestHead, at: float, *, is_end: bool) -> None:
        """The client's headers have passed, or its trailers."""
        call = self._live.get(stream)
        if call is None:
            # What comes for a stream that is over is no new one: ids only rise.
            if stream <= self._last_stream or not stream & 1:
                return
            self._last_stream = stream
            call = self._start(stream, headers, head, at)
        if call is not None and is_end:
            self._half_close(call, at)

    def answered(self, stream: int, headers: Headers, head: ResponseHead, at: float, *, is_end: bool) -> None:
        """The backend's headers have passed, or its trailers."""
        call = self._live.get(stream)
        if call is None:
            return
        if call.http_status is not None:
            if is_end:
                self._end_by_headers(stream, call, _TRAILERS, headers, head, at)
        elif is_end:
            call.http_status = head.http_status
            self._end_by_headers(stream, call, call.known_ending or Ending.TRAILERS_ONLY, headers, head, at)
        elif head.http_status is None or head.http_status >= HTTP_OK:  # those below only announce the real one
            call.http_status = head.http_status or HTTP_OK
            call.responses.is_readable = head.is_grpc
            self._tell(_new(Answered, (call.number, at, headers)))

    def client_data(self, stream: int, payload: bytes, at: float, *, is_end: bool) -> None:
        """A piece of the client's DATA has passed."""
        call = self._live.get(stream)
        if call is not None:
            if payload and call.requests.is_readable:
                self._data(call, call.requests, payload, at)
            if is_end:
                self._half_close(call, at)

    def backend_data(self, stream: int, payload: bytes, at: float, *, is_end: bool) -> None:
        """A piece of the backend's DATA has passed."""
        call = self._live.get(stream)
        if call is not None:
            if payload and call.responses.is_readable:
                self._data(call, call.responses, payload, at)
            if is_end:
                self.end(stream, at, Ending.NO_TRAILERS, Status.UNKNOWN)

    def reset(self, stream: int, ending: Ending, code: int, at: float) -> None:
        """RST_STREAM has passed."""
        call = self._live.get(stream)
        if call is None:
            return
        if ending is Ending.RESET_BY_BACKEND:
            ending = call.known_ending or ending
        if ending is Ending.RESET_BY_CLIENT and call.http_status not in (None, HTTP_OK):
            # It can't take the answer, and its status is what it makes of that.
            status = of_http(call.http_status or HTTP_OK)
        else:
            status = of_reset(code, at - call.started_at, call.timeout_s)
        message = _DEADLINE_OVER if status is Status.DEADLINE_EXCEEDED else ""
        self.end(stream, at, ending, status, message=message, reset_code=code)

    def refuse_after(self, last: int, code: int, at: float) -> None:
        """The backend's GOAWAY has passed: it does not process streams above `last`."""
        self.last_allowed = last
        for stream in [stream for stream in self._live if stream > last]:
            self.end(stream, at, Ending.REFUSED, Status.UNAVAILABLE, reset_code=code)

    def end_all(self, ending: Ending, status: Status | None, message: str = "") -> None:
        """Every one of them, now."""
        at = self._clock()
        for stream in list(self._live):
            self.end(stream, at, ending, status, message=message)

    def forget(self) -> None:
        """Let go of what is left, untold."""
        for call in self._live.values():
            _close(call)
        self._live.clear()

    def end(
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
        """A live call is over."""
        call = self._live.pop(stream)
        requests, responses = call.requests, call.responses
        if requests.parser is not None or responses.parser is not None:
            _close(call)
        if call.timeout_s is not None and at - call.started_at >= call.timeout_s and ending not in _NOT_JUDGED:
            # The client's own clock began before Loom's: it has given the call up, whatever happens to it now.
            status, message = Status.DEADLINE_EXCEEDED, _DEADLINE_OVER
        if not (message or trailers):
            message = _IN_WORDS[ending]
        ended = (
            call.number,
            at,
            ending,
            status,
            message,
            trailers,
            call.http_status,
            reset_code,
            requests.messages,
            responses.messages,
        )
        self._tell(_new(Ended, ended))

    def _start(self, stream: int, headers: Headers, head: RequestHead, at: float) -> _Call | None:
        if len(self._live) >= self._limits.streams:
            self.saw_all = False
            self._events.untracked()
            return None
        method, authority, timeout_s, is_grpc = head
        number = next(self._numbers)
        call = self._live[stream] = _Call(number, at, timeout_s)
        call.requests.is_readable = is_grpc
        connection, peer = self._peer
        wall = self._wall() - (self._clock() - at)
        started = (number, at, wall, connection, stream, peer, method, authority, headers, timeout_s)
        self._tell(_new(Started, started))
        if self.last_allowed is not None and stream > self.last_allowed:
            self.end(stream, at, Ending.REFUSED, Status.UNAVAILABLE)
            return None
        return call

    def _end_by_headers(
        self, stream: int, call: _Call, ending: Ending, headers: Headers, head: ResponseHead, at: float
    ) -> None:
        status, message = head.status, head.message
        if status is None:
            http_status = call.http_status or HTTP_OK
            is_http_ok = http_status == HTTP_OK
            status = Status.UNKNOWN if is_http_ok else of_http(http_status)
            message = message or ("no grpc-status in the trailers" if is_http_ok else f"HTTP status {http_status}")
        self.end(stream, at, ending, status, message=message, trailers=headers)

    def _data(self, call: _Call, side: _Side, payload: bytes, at: float) -> None:
        """A piece of one direction's messages."""
        parser = side.parser
        length = len(payload)
        if length >= PREFIX_BYTES and (parser is None or not parser.is_partial):
            # Most messages are sent as one frame of DATA each, and are told of without more ado.
            flag, size = _prefix(payload)
            if flag <= 1 and size + PREFIX_BYTES == length:
                data = payload[PREFIX_BYTES : self._keep_to]
                position = side.messages
                side.messages = position + 1
                self._tell(_new(Message, (call.number, at, side.direction, position, flag == 1, data, size)))
                return
        if parser is None:
            parser = side.parser = MessageParser(self._limits.message_bytes, self._budget)
        for is_compressed, size, data in parser.feed(payload):
            self._tell(Message(call.number, at, side.direction, side.messages, is_compressed, data, size))
            side.messages += 1
        if parser.is_broken:
            side.is_readable = False
            self._events.unreadable()

    def _half_close(self, call: _Call, at: float) -> None:
        if not call.is_half_closed:
            call.is_half_closed = True
            self._tell(_new(HalfClosed, (call.number, at)))


def _close(call: _Call) -> None:
    for side in (call.requests, call.responses):
        if side.parser is not None:
            side.parser.close()


_DEADLINE_OVER: Final = "the client's deadline was over"
_NOT_JUDGED: Final = frozenset({Ending.RESET_BY_CLIENT, Ending.CLIENT_LOST, Ending.BROKEN_BY_CLIENT, Ending.UNSEEN})
"""Endings by which the client itself says what it makes of the call, or that tell nothing of it."""
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
