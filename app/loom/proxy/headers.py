"""Header blocks: HPACK (RFC 7541) decoded in passing, and put together from HEADERS and CONTINUATION.

A decoder must see every block of its direction, in order, and is of no use after one that it could not decode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from hpack import Decoder, OversizedHeaderListError
from hpack.table import HeaderTable

from app.loom.call import Headers
from app.loom.proxy.events import Blindness
from app.loom.proxy.framing import CONTINUATION, END_HEADERS, HEADERS, PUSH_PROMISE, Frame

T = TypeVar("T")

_KNOWN_BLOCKS: Final = 128
_KNOWN_BYTES: Final = 1024
_INDEXED: Final = 0x80  # a field that is an index, in the 7 bits below (RFC 7541, section 6.1)
_LONGER_INDEX: Final = 0xFF
_ENTRY_BYTES: Final = 32  # what a field counts besides its name and value (section 4.1)
_PROMISED_BYTES: Final = 4  # of PUSH_PROMISE, the promised stream's id
_MAX_PARTS: Final = 1024  # empty ones would add up to no size at all


class BlockError(Exception):
    """A header block that can't be put together; and with it those after it can't be decoded."""

    def __init__(self, why: Blindness, detail: str) -> None:
        super().__init__(detail)
        self.why = why


class Block(NamedTuple):
    """A whole header block; `kind`, `flags` and `stream` are those of its first frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class BlockAssembler:
    """Puts one direction's header blocks together, up to `max_bytes` each."""

    __slots__ = ("_begun", "_max", "_parts", "_size", "is_open")

    def __init__(self, max_bytes: int) -> None:
        self.is_open = False
        """Whether a block has begun and not ended: then every frame is part of it."""
        self._max = max_bytes
        self._begun = Block(HEADERS, 0, 0, b"")
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, frame: Frame) -> Block | None:
        """The block that `frame` completes. Raises `BlockError`."""
        kind, flags, stream, payload, _ = frame
        if payload is None:
            raise BlockError("header_size", "a header block is too long, or shorter than its padding")
        if not self.is_open:
            if kind == CONTINUATION:
                raise BlockError("framing", "CONTINUATION outside a header block")
            if kind == PUSH_PROMISE:
                payload = payload[_PROMISED_BYTES:]
            if flags & END_HEADERS:
                return Block(kind, flags, stream, payload)
            self.is_open = True
            self._begun = Block(kind, flags, stream, b"")
            self._parts, self._size = [payload], len(payload)
            return None
        if kind != CONTINUATION or stream != self._begun.stream:
            raise BlockError("framing", "another frame inside a header block")
        self._size += len(payload)
        if self._size > self._max or len(self._parts) >= _MAX_PARTS:
            raise BlockError("header_size", f"a header block over {self._max} bytes, or in over {_MAX_PARTS} frames")
        self._parts.append(payload)
        if not flags & END_HEADERS:
            return None
        self.is_open = False
        return self._begun._replace(payload=b"".join(self._parts))


class _WatchedTable(HeaderTable):
    """A dynamic table that tells whether a block has changed it."""

    changed = False

    def add(self, name: bytes, value: bytes) -> None:
        was_empty = not self.dynamic_entries
        super().add(name, value)
        # A table of no size stays empty, whatever is added: some clients ask for one.
        self.changed = self.changed or not was_empty or bool(self.dynamic_entries)

    @property
    def maxsize(self) -> int:
        return super().maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changed = True
        HeaderTable.maxsize.__set__(self, newmax)  # type: ignore[attr-defined]


class HeaderDecoder(Generic[T]):
    """Decodes one direction's header blocks, and makes a `T` of each by `read`, which must be pure.

    Until the dynamic table changes, equal blocks mean equal headers. Most calls on a connection differ in nothing, so
    what a block was found to mean is remembered for as long.
    """

    __slots__ = ("_decoder", "_known", "_max_list", "_max_table", "_read", "_table")

    def __init__(self, read: Callable[[Headers], T], *, max_list_bytes: int, max_table_bytes: int) -> None:
        self._read = read
        self._max_table = max_table_bytes
        self._max_list = max_list_bytes
        self._decoder = Decoder(max_header_list_size=max_list_bytes)
        self._decoder.header_table = self._table = _WatchedTable()
        self._known: dict[bytes, tuple[Headers, T]] = {}

    def allow_table(self, size_bytes: int) -> None:
        """The other side's SETTINGS_HEADER_TABLE_SIZE: this side's encoder may use as much from some time on.

        It is never lowered: blocks sent before the encoder learned of it may still be on their way, and the encoder
        says in a block when it shrinks its table.
        """
        allowed = min(size_bytes, self._max_table)
        self._decoder.max_allowed_table_size = max(self._decoder.max_allowed_table_size, allowed)

    def decode(self, block: bytes) -> tuple[Headers, T]:
        """The headers, and what `read` made of them. Raises `hpack.HPACKError`."""
        known = self._known.get(block)
        if known is not None:
            return known
        self._table.changed = False
        headers = self._decode(block)
        result = headers, self._read(headers)
        if self._table.changed:
            self._known.clear()
        elif len(block) <= _KNOWN_BYTES:
            if len(self._known) >= _KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = result
        return result

    def _decode(self, block: bytes) -> Headers:
        """Fields that are one index of a byte each, as most blocks begin, are looked up; the library does the rest.

        It takes several times as long for each, and a deadline that differs from call to call, as some clients send
        it, changes the table each time.
        """
        fields: list[tuple[bytes, bytes]] = []
        left = self._max_list
        position = 0
        for byte in block:
            if byte <= _INDEXED or byte == _LONGER_INDEX:
                break
            name, value = self._table.get_by_index(byte - _INDEXED)
            left -= len(name) + len(value) + _ENTRY_BYTES
            if left < 0:
                raise OversizedHeaderListError(f"a header list of more than {self._max_list} bytes")
            fields.append((name, value))
            position += 1
        if position < len(block):
            self._decoder.max_header_list_size = left
            fields += [(name, value) for name, value in self._decoder.decode(block[position:], raw=True)]
        return tuple(fields)
