"""What passes over one connection, read in passing: bytes of either direction in, the events of its calls out. No I/O.

It fails open. Where a header block can't be decoded, or whoever listens raises, the connection is blinded: its live
calls end as unseen, no more are told of, and only frame boundaries are still kept. Bytes are not its business: they
have gone on already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

from hpack import HPACKError, OversizedHeaderListError

from app.concurrency.clock import Clock, monotonic, wall
from app.loom.call import Ending, Status
from app.loom.proxy import framing
from app.loom.proxy.events import Blindness, ProxyEvents
from app.loom.proxy.framing import DATA, END_HEADERS, END_STREAM, HEADERS, Budget, Frame, FrameParser
from app.loom.proxy.headers import BlockAssembler, BlockError, HeaderDecoder
from app.loom.proxy.limits import Limits
from app.loom.proxy.live import LiveCalls, Peer
from app.loom.proxy.status import RequestHead, ResponseHead, read_request, read_response

_log = logging.getLogger(__name__)

_LAST_STREAM: Final = 0x7FFFFFFF
_HEADER_TABLE_SIZE: Final = 0x1
_SETTING_BYTES: Final = 6


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
        self._peer = peer
        self._events = events
        self._on_blinded = on_blinded
        self._clock = clock
        self._calls = LiveCalls(
            peer, events, limits=limits, numbers=calls, budget=budget, clock=clock, wall_clock=wall_clock
        )
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
        return len(self._calls)

    @property
    def saw_all(self) -> bool:
        """Whether every call was told of until now."""
        return self._calls.saw_all and not self.is_blinded

    @property
    def backend_goaway(self) -> int | None:
        """The last stream that the backend's GOAWAY allows, once there was one."""
        return self._calls.last_allowed

    def call_number(self, stream: int) -> int | None:
        """Of a live call that is told of."""
        return self._calls.number(stream)

    def ends_by(self, stream: int, ending: Ending) -> None:
        """The end that comes next on this stream is Loom's doing, and this is why."""
        self._calls.ends_by(stream, ending)

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
        if not frames or self.is_blinded:
            return
        at = self._clock() if at is None else at
        blocks, calls = self._client_blocks, self._calls
        try:
            for frame in frames:
                kind, flags, stream, payload, is_last = frame
                if blocks.is_open or payload is None:
                    self._other_client_frame(frame, at)
                elif kind == DATA:
                    calls.client_data(stream, payload, at, is_end=is_last and flags & END_STREAM != 0)
                elif kind == HEADERS and flags & END_HEADERS:
                    headers, head = self._requests.decode(payload)
                    calls.asked(stream, headers, head, at, is_end=flags & END_STREAM != 0)
                else:
                    self._other_client_frame(frame, at)
        except Exception as error:  # noqa: BLE001 - whatever the tap does, traffic goes on
            self._failed(error)

    def backend_bytes(self, data: bytes, at: float | None = None) -> None:
        """Bytes from the backend have passed, `at` that time or now."""
        frames = self._backend.feed(data)
        if not self.is_greeted:
            self.is_greeted = self._backend.boundary is not None
        if not frames or self.is_blinded:
            return
        at = self._clock() if at is None else at
        blocks, calls = self._backend_blocks, self._calls
        try:
            for frame in frames:
                kind, flags, stream, payload, is_last = frame
                if blocks.is_open or payload is None:
                    self._other_backend_frame(frame, at)
                elif kind == DATA:
                    calls.backend_data(stream, payload, at, is_end=is_last and flags & END_STREAM != 0)
                elif kind == HEADERS and flags & END_HEADERS:
                    headers, head = self._responses.decode(payload)
                    calls.answered(stream, headers, head, at, is_end=flags & END_STREAM != 0)
                else:
                    self._other_backend_frame(frame, at)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)

    def end(self, ending: Ending, why: str = "") -> None:
        """The connection is over, and with it every live call: lost on one side, or ended by Loom, which says why."""
        status = Status.CANCELLED if ending is Ending.CLIENT_LOST else Status.UNAVAILABLE
        self._end_all(ending, status, why)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, BlockError):
            self._blind(error.why, str(error))
        elif isinstance(error, OversizedHeaderListError):
            self._blind("header_size", str(error))
        elif isinstance(error, HPACKError):
            self._blind("hpack", str(error))
        else:
            self._tell_of_error(error)
            self._blind("tap", "an error in what listens to its events")

    def _blind(self, why: Blindness, detail: str) -> None:
        self.is_blinded = True
        _log.warning("connection %d from %s can no longer be decoded: %s", *self._peer, detail)
        self._events.blinded(why)
        self._end_all(Ending.UNSEEN, None)
        self._on_blinded()

    def _end_all(self, ending: Ending, status: Status | None, message: str = "") -> None:
        try:
            self._calls.end_all(ending, status, message)
        except Exception as error:  # noqa: BLE001 - as above
            self._tell_of_error(error)
            self._calls.forget()

    def _tell_of_error(self, error: Exception) -> None:
        _log.error("connection %d from %s: its events met an error", *self._peer, exc_info=error)

    def _other_client_frame(self, frame: Frame, at: float) -> None:
        kind, flags, stream, payload, _ = frame
        if kind in _BLOCK_KINDS or self._client_blocks.is_open:
            block = self._client_blocks.add(frame)
            if block is not None:
                headers, head = self._requests.decode(block.payload)
                if block.kind == HEADERS:
                    is_end = bool(block.flags & END_STREAM)
                    self._calls.asked(block.stream, headers, head, at, is_end=is_end)
        elif kind == framing.RST_STREAM:
            self._calls.reset(stream, Ending.RESET_BY_CLIENT, _code(payload), at)
        elif kind == framing.SETTINGS:
            self._settings(flags, payload, self._responses)

    def _other_backend_frame(self, frame: Frame, at: float) -> None:
        kind, flags, stream, payload, _ = frame
        if kind in _BLOCK_KINDS or self._backend_blocks.is_open:
            block = self._backend_blocks.add(frame)
            if block is not None:
                headers, head = self._responses.decode(block.payload)
                if block.kind == HEADERS:
                    is_end = bool(block.flags & END_STREAM)
                    self._calls.answered(block.stream, headers, head, at, is_end=is_end)
        elif kind == framing.RST_STREAM:
            self._calls.reset(stream, Ending.RESET_BY_BACKEND, _code(payload), at)
        elif kind == framing.SETTINGS:
            self._settings(flags, payload, self._requests)
        elif kind == framing.GOAWAY and payload is not None and len(payload) >= 8:
            last = int.from_bytes(payload[:4]) & _LAST_STREAM
            self._calls.refuse_after(last, int.from_bytes(payload[4:8]), at)

    def _settings(
        self, flags: int, payload: bytes | None, decoder: HeaderDecoder[RequestHead] | HeaderDecoder[ResponseHead]
    ) -> None:
        if flags & framing.ACK or not payload:
            return
        for start in range(0, len(payload) - _SETTING_BYTES + 1, _SETTING_BYTES):
            if int.from_bytes(payload[start : start + 2]) == _HEADER_TABLE_SIZE:
                decoder.allow_table(int.from_bytes(payload[start + 2 : start + _SETTING_BYTES]))


def _code(payload: bytes | None) -> int:
    return int.from_bytes(payload[:4]) if payload else 0


_BLOCK_KINDS: Final = frozenset({HEADERS, framing.PUSH_PROMISE, framing.CONTINUATION})
