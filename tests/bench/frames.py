"""HTTP/2 frames, as far as the load clients, and what they ask, need them.

Source: https://www.rfc-editor.org/rfc/rfc9113#section-4.1.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hpack.hpack import Encoder

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
HEAD_BYTES = 9
MAX_FRAME_BYTES = 16_384
"""Of a payload, where the peer allows no more."""
WINDOW = 2**31 - 1
"""Largest flow-control window: whoever has it is never held up."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FIRST_WINDOW = 65_535
_HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
_HEAD = struct.Struct(">BHBBL")
"""Length in two parts, type, flags, stream."""


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """The frame's bytes."""
    return _HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def frames(buffer: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning of the buffer, and what is left of it."""
    found, at = [], 0
    while len(buffer) - at >= HEAD_BYTES:
        high, low, kind, flags, stream = _HEAD.unpack_from(buffer, at)
        begin = at + HEAD_BYTES
        end = begin + ((high << 16) | low)
        if end > len(buffer):
            break
        found.append(Frame(kind, flags, stream, buffer[begin:end]))
        at = end
    return found, buffer[at:]


def greeting() -> bytes:
    """What a client sends first: no header table, and no window that would hold the server up."""
    settings = struct.pack(">HLHL", _HEADER_TABLE_SIZE, 0, INITIAL_WINDOW_SIZE, WINDOW)
    window = struct.pack(">L", WINDOW - _FIRST_WINDOW)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, window)


def header_block(*headers: tuple[str, str]) -> bytes:
    """The payload of HEADERS. Nothing goes into a table: it may be sent again and again, to anyone."""
    block: bytes = Encoder().encode([(name, value, True) for name, value in headers], huffman=False)
    return block


def grpc_call(target: str, method: str, message: bytes) -> tuple[bytes, bytes]:
    """The payloads of a call's HEADERS and of its one DATA, the same each time."""
    headers = header_block(
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", target),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-bench/1"),
    )
    return headers, b"\0" + struct.pack(">L", len(message)) + message
