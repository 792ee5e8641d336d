"""Compressed messages (https://github.com/grpc/grpc/blob/master/doc/compression.md): zlib's formats, as `grpc-encoding`
names them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

_WINDOW_BITS: Final[Mapping[bytes, int]] = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class CompressionError(Exception):
    """The message can't be decompressed; the text says why."""


def decompress(data: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Raises `CompressionError`, also where it becomes larger than `max_bytes`."""
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise CompressionError(f"compressed by {encoding.decode('latin-1') or 'nothing that was named'}")
    inflater = zlib.decompressobj(bits)
    try:
        plain = inflater.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise CompressionError(f"not {encoding.decode()}: {error}") from error
    if len(plain) > max_bytes:
        raise CompressionError(f"larger than {max_bytes} bytes when decompressed")
    if not inflater.eof:
        raise CompressionError(f"not all of its {encoding.decode()}")
    return plain


def compress(data: bytes, encoding: bytes) -> bytes:
    """By an encoding that `decompress` knows."""
    deflater = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
    return deflater.compress(data) + deflater.flush()
