"""One direction of a call in the intercept lane: what came and has not gone on yet.

What a flow holds is bounded by flow control, end to end: the sender gets room for more only as bytes go on.
"""

from __future__ import annotations

from typing import Final

from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from app.loom.call import Headers
from app.loom.proxy.rewriting import MessageRewriter

END_STREAM: Final[Headers] = ()
"""Ends a flow without trailers."""


class Flow:
    """From `source` to `target`. Nothing goes on before `open_to`."""

    def __init__(self, source: H2Connection, source_stream: int | None, target: H2Connection) -> None:
        self.rewriter: MessageRewriter | None = None
        self.end: Headers | None = None
        """How it ends, once its source has said so: by these trailers, or by `END_STREAM`."""
        self.is_over = False
        """Whether its end, or a reset, has gone on."""
        self._source = source
        self._source_stream = source_stream
        self._target = target
        self._target_stream: int | None = None
        self._early = bytearray()
        self._queue = bytearray()
        self._owed = 0  # bytes that the source has got no room back for
        self._reset: int | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether it has something to send that the target has no room for."""
        return self._target_stream is not None and not self.is_over and bool(self._queue)

    @property
    def is_open(self) -> bool:
        """Whether the target's stream is there."""
        return self._target_stream is not None

    @property
    def is_decided(self) -> bool:
        """Whether its source has said how it ends."""
        return self.end is not None or self._reset is not None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits in it."""
        return not (self._early or self._queue)

    def come_from(self, stream: int) -> None:
        """The source's stream is there."""
        self._source_stream = stream

    def open_to(self, stream: int, *, is_over: bool) -> None:
        """The target's stream is there; `is_over` where its headers have ended it."""
        self._target_stream = stream
        self.is_over = is_over
        early, self._early = bytes(self._early), bytearray()
        self._add(early)

    def take(self, data: bytes, flow_controlled: int) -> None:
        """A piece of DATA has come, `flow_controlled` bytes long with its padding."""
        self._owed += flow_controlled
        if self.is_over:
            self._give_room()
            return
        if self._target_stream is None:
            self._early += data
        else:
            self._add(data)

    def reset_after(self, code: int) -> None:
        """Reset the target's stream once what came before has gone on."""
        self._reset = code

    def pump(self) -> None:
        """Send on what the target has room for."""
        stream = self._target_stream
        if stream is None or self.is_over:
            return
        try:
            self._send(stream)
        except ProtocolError:
            self.drop()  # the target's stream is closed: it wants no more
        self._give_room()

    def drop(self) -> None:
        """Nothing goes on any more; what is held is let go."""
        self.is_over = True
        if self.rewriter is not None:
            self.rewriter.close()
        self._queue.clear()
        self._early.clear()
        self._give_room()

    def _add(self, data: bytes) -> None:
        if self.is_over:
            return
        self._queue += data if self.rewriter is None else self.rewriter.feed(data)

    def _send(self, stream: int) -> None:
        target = self._target
        if self.end is not None and self.rewriter is not None:
            self._queue += self.rewriter.close()
            self.rewriter = None
        ends_with_data = self.end == END_STREAM
        while self._queue:
            size = min(len(self._queue), target.local_flow_control_window(stream), target.max_outbound_frame_size)
            if size <= 0:
                return
            is_end = ends_with_data and size == len(self._queue)
            target.send_data(stream, bytes(self._queue[:size]), end_stream=is_end)
            del self._queue[:size]
            self.is_over = is_end
        if self.end is not None and not self.is_over:
            if self.end:
                target.send_headers(stream, self.end, end_stream=True)
            else:
                target.end_stream(stream)
            self.is_over = True
        if self._reset is not None:
            target.reset_stream(stream, self._reset)
            self.is_over = True

    def _give_room(self) -> None:
        room = self._owed - len(self._queue) - len(self._early)
        if room > 0 and self._source_stream is not None:
            self._owed -= room
            self._source.acknowledge_received_data(room, self._source_stream)
