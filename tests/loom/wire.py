"""HTTP/2 frames and gRPC messages, written out byte by byte."""

from __future__ import annotations

from hpack import Encoder

from app.loom.proxy.framing import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    RST_STREAM,
    SETTINGS,
)

PING = 0x6
WINDOW_UPDATE = 0x8
LARGE = 10_000
"""Bytes of header values from which on they are not coded by Huffman, which takes Python long."""

REQUEST_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Echo/Unary"),
    (":authority", "example.test"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
RESPONSE_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK_TRAILERS = [("grpc-status", "0")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def headers(
    encoder: Encoder, stream: int, fields: list[tuple[str, str]], *, end: bool = False, in_frames: int = 1
) -> bytes:
    """A header block, in one HEADERS and as many CONTINUATION frames as it takes."""
    block = encoder.encode(fields, huffman=sum(len(value) for _, value in fields) < LARGE)
    size = -(-len(block) // in_frames)
    parts = [block[start : start + size] for start in range(0, len(block), size)]
    written = b""
    for index, part in enumerate(parts):
        flags = END_HEADERS if index == len(parts) - 1 else 0
        if index == 0 and end:
            flags |= END_STREAM
        written += frame(HEADERS if index == 0 else CONTINUATION, flags, stream, part)
    return written


def data(stream: int, payload: bytes, *, end: bool = False, padding: int | None = None) -> bytes:
    flags = END_STREAM if end else 0
    if padding is not None:
        flags |= PADDED
        payload = bytes([padding]) + payload + bytes(padding)
    return frame(DATA, flags, stream, payload)


def message(body: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(body).to_bytes(4) + body


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4))


def settings(**values: int) -> bytes:
    ids = {"header_table_size": 1, "max_concurrent_streams": 3, "initial_window_size": 4, "max_header_list_size": 6}
    payload = b"".join(ids[name].to_bytes(2) + value.to_bytes(4) for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def goaway(last_stream: int, code: int = 0) -> bytes:
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4) + code.to_bytes(4))
