"""HTTP/2 frames (RFC 9113, section 4) and gRPC's length-prefixed messages, cut out of bytes that come in any pieces.

Pure: bytes in, frames or messages out. Nothing here raises for any input, and nothing grows with it: payloads are kept
up to a bound, DATA is handed on in the pieces in which it comes.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client's connection begins with (RFC 9113, section 3.4)."""

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
GOAWAY: Final = 0x7
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

HEAD_BYTES: Final = 9
PREFIX_BYTES: Final = 5

_TOLD: Final = frozenset({DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION})
_BLOCKS: Final = frozenset({HEADERS, PUSH_PROMISE, CONTINUATION})
_PADDED: Final = frozenset({DATA, HEADERS, PUSH_PROMISE})
_SHORTENED: Final = PADDED | PRIORITY
_NO_FRAME: Final = -1
_STREAM_ID: Final = 0x7FFFFFFF
_PRIORITY_BYTES: Final = 5
_unpack_head = Struct(">HBBBL").unpack_from
_unpack_prefix = Struct(">BL").unpack_from
_new = tuple.__new__  # what a named tuple's own constructor calls, after some work that costs more


class Frame(NamedTuple):
    """A frame of a kind that says something about calls; of DATA, a piece of one."""

    kind: int
    flags: int
    stream: int
    payload: bytes | None
    """Without padding and priority; `None` where these contradict the frame's length, or it is too long to keep."""
    is_last: bool
    """False for a piece of DATA that more of the same frame follows."""


class FrameParser:
    """Cuts one direction of a connection into frames.

    Frames that say nothing about calls (PING, WINDOW_UPDATE, PRIORITY, unknown ones) are passed over. Payloads other
    than DATA are kept up to `max_payload_bytes`. A client's direction begins with the preface, of `skip` bytes.
    """

    __slots__ = ("_begun", "_data_left", "_held", "_in_block", "_max_payload", "_skip", "_wanted", "boundary")

    def __init__(self, *, max_payload_bytes: int, skip: int = 0) -> None:
        self.boundary: int | None = None
        """Where in what was fed last a frame may be put in: after its last whole frame outside any header block."""
        self._max_payload = max_payload_bytes
        self._begun = (_NO_FRAME, 0, 0)  # kind, flags and stream of the frame that is under way
        self._held = bytearray()  # its head, and its payload where that is kept whole
        self._wanted = 0  # how many bytes are to be held; 0 when none are
        self._data_left = 0
        self._skip = skip
        self._in_block = False

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may be put in right after what was fed last."""
        return not (self._wanted or self._data_left or self._skip or self._in_block)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, and the pieces of DATA in it."""
        frames: list[Frame] = []
        self.boundary = None
        position, end = 0, len(data)
        while position < end:
            if self._wanted:
                position = self._hold(data, position, frames)
            elif self._data_left:
                position = self._pass_data(data, position, frames)
            elif self._skip:
                position = self._pass_over(data, position, frames)
            else:
                position = self._whole(data, position, frames)
                if position + HEAD_BYTES > end:
                    if position < end:
                        self._wanted = HEAD_BYTES
                        self._held += data[position:]
                    break
                high, low, kind, flags, stream = _unpack_head(data, position)
                if self._begin(kind, flags, stream & _STREAM_ID, high << 8 | low):
                    self._held += data[position : position + HEAD_BYTES]
                position += HEAD_BYTES
        return frames

    def _whole(self, data: bytes, position: int, frames: list[Frame]) -> int:
        """Frames that are whole, one after another; where the first begins that is not."""
        most = self._max_payload
        last_head = len(data) - HEAD_BYTES
        while position <= last_head:
            high, low, kind, flags, stream = _unpack_head(data, position)
            start = position + HEAD_BYTES
            end = start + (high << 8 | low)
            if end - HEAD_BYTES > last_head:
                break
            position = end
            if kind <= HEADERS and not (flags & _SHORTENED or self._in_block) and end - start <= most:
                # By far the most frequent; as `_complete` would do it.
                frames.append(_new(Frame, (kind, flags, stream & _STREAM_ID, data[start:end], True)))
                if kind == DATA or flags & END_HEADERS:
                    self.boundary = end
                else:
                    self._in_block = True
            elif kind in _TOLD:
                payload = data[start:end] if kind == DATA or end - start <= most else None
                self._complete(kind, flags, stream & _STREAM_ID, payload, end, frames)
            elif not self._in_block:
                self.boundary = end
        return position

    def _begin(self, kind: int, flags: int, stream: int, length: int) -> bool:
        """A frame begins whose payload, of at least a byte, is not at hand yet. Whether its head is to be held."""
        self._begun = kind, flags, stream
        if kind == DATA:
            if flags & PADDED:
                self._wanted = HEAD_BYTES + 1
            else:
                self._data_left = length
        elif kind in _TOLD and length <= self._max_payload:
            self._wanted = HEAD_BYTES + length
        else:
            self._skip = length
        return self._wanted > 0

    def _hold(self, data: bytes, position: int, frames: list[Frame]) -> int:
        piece = data[position : position + self._wanted - len(self._held)]
        self._held += piece
        position += len(piece)
        if len(self._held) < self._wanted:
            return position
        high, low, kind, flags, stream = _unpack_head(self._held, 0)
        length = high << 8 | low
        wanted, self._wanted = self._wanted, 0
        if wanted == HEAD_BYTES and length:
            if self._begin(kind, flags, stream & _STREAM_ID, length):
                return position
        elif kind == DATA and length:
            rest = length - 1
            self._data_left = max(0, rest - self._held[HEAD_BYTES])
            self._skip = rest - self._data_left
            if not rest:
                self._complete(*self._begun, b"\x00", position, frames)
        else:
            self._complete(kind, flags, stream & _STREAM_ID, bytes(self._held[HEAD_BYTES:]), position, frames)
        self._held.clear()
        return position

    def _pass_data(self, data: bytes, position: int, frames: list[Frame]) -> int:
        piece = data[position : position + self._data_left]
        self._data_left -= len(piece)
        position += len(piece)
        kind, flags, stream = self._begun
        is_last = not (self._data_left or self._skip)
        frames.append(Frame(kind, flags, stream, piece, is_last))
        if is_last and not self._in_block:
            self.boundary = position
        return position

    def _pass_over(self, data: bytes, position: int, frames: list[Frame]) -> int:
        """The preface, padding, or a frame whose payload is not kept."""
        passed = min(self._skip, len(data) - position)
        self._skip -= passed
        position += passed
        if not self._skip:
            kind, flags, stream = self._begun
            if kind == DATA:
                frames.append(Frame(kind, flags, stream, b"", True))
                if not self._in_block:
                    self.boundary = position
            elif kind != _NO_FRAME:
                self._complete(kind, flags, stream, None, position, frames)
        return position

    def _complete(
        self, kind: int, flags: int, stream: int, payload: bytes | None, position: int, frames: list[Frame]
    ) -> None:
        """A whole frame ends at `position`."""
        if kind in _TOLD:
            if payload and flags & _SHORTENED and kind in _PADDED:
                payload = _bare(kind, flags, payload)
            frames.append(_new(Frame, (kind, flags, stream, payload, True)))
            if kind in _BLOCKS:
                self._in_block = not flags & END_HEADERS
        if not self._in_block:
            self.boundary = position


def _bare(kind: int, flags: int, payload: bytes) -> bytes | None:
    """`payload` without padding and priority; `None` where it has no room for what its flags say."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - payload[0]
    if kind == HEADERS and flags & PRIORITY:
        start += _PRIORITY_BYTES
    if start <= end:
        return payload[start:end]
    return b"" if kind == DATA else None


class Budget:
    """Bytes that all messages under way in a process may take up together."""

    __slots__ = ("left",)

    def __init__(self, limit_bytes: int) -> None:
        self.left = limit_bytes

    def take(self, wanted: int) -> int:
        """As many of `wanted` bytes as are left; give them back."""
        granted = min(wanted, self.left)
        self.left -= granted
        return granted

    def give_back(self, taken: int) -> None:
        self.left += taken


class CutMessage(NamedTuple):
    """A message as it passed; `data` is its beginning, as far as it was kept."""

    is_compressed: bool
    size: int
    data: bytes


class MessageParser:
    """Cuts one direction of a call into messages: a flag, four bytes of length, and so many bytes.

    (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, Length-Prefixed-Message.) Of a message up to
    `keep_bytes` are kept, and fewer where `budget` is used up. Once a flag is neither 0 nor 1 what follows can't be
    told apart, and there are no more messages: `is_broken`.
    """

    __slots__ = ("_body", "_budget", "_keep", "_left", "_prefix", "_size", "_taken", "is_broken")

    def __init__(self, keep_bytes: int, budget: Budget) -> None:
        self.is_broken = False
        self._keep = keep_bytes
        self._budget = budget
        self._prefix = b""  # of the message under way, as far as it has come
        self._body = bytearray()
        self._size = 0
        self._left = 0  # bytes of the message under way still to come, once its prefix has
        self._taken = 0

    @property
    def is_partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._prefix)

    def feed(self, data: bytes) -> list[CutMessage]:
        """The messages that `data` completes."""
        messages: list[CutMessage] = []
        position, end = 0, len(data)
        while position < end and not self.is_broken:
            if self._left:
                position = self._go_on(data, position, messages)
                continue
            missing = PREFIX_BYTES - len(self._prefix)
            if position + missing > end:
                self._prefix += data[position:]
                break
            if self._prefix:
                flag, size = _unpack_prefix(self._prefix + data[position : position + missing])
            else:
                flag, size = _unpack_prefix(data, position)
            position += missing
            if flag > 1:
                self.is_broken = True
                self._prefix = b""
            elif position + size <= end:
                messages.append(CutMessage(flag == 1, size, data[position : position + min(size, self._keep)]))
                position += size
                self._prefix = b""
            else:
                self._prefix = b"\x01" if flag else b"\x00"
                self._size = self._left = size
        return messages

    def close(self) -> None:
        """What is kept of a message under way is let go."""
        self._budget.give_back(self._taken)
        self._taken = self._left = 0
        self._body = bytearray()

    def _go_on(self, data: bytes, position: int, messages: list[CutMessage]) -> int:
        size = min(self._left, len(data) - position)
        # Once a piece is left out, all after it are: what is kept is a beginning.
        room = min(size, self._keep - len(self._body)) if len(self._body) == self._size - self._left else 0
        if room:
            granted = self._budget.take(room)
            self._taken += granted
            self._body += data[position : position + granted]
        self._left -= size
        if not self._left:
            messages.append(CutMessage(self._prefix == b"\x01", self._size, bytes(self._body)))
            self.close()
            self._prefix = b""
        return position + size
