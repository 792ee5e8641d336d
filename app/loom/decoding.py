"""What recorded messages mean: undone of their compression, and read by the schema that explained them then."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from app.loom.call import Direction, StreamKind, first_value
from app.loom.recording.record import Kept, Record
from app.loom.schema import schemaless
from app.loom.schema.errors import TranscodeError
from app.loom.schema.schema import Schema
from app.loom.schema.transcoder import UNDECODED, to_json

MAX_INFLATED_BYTES: Final = 64 << 20
FIELDS: Final = "@fields"
"""Where a message stands that no schema explains: its fields by number."""
_WINDOWS: Final[Mapping[bytes, int]] = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class CompressionError(Exception):
    """The message can't be decompressed; the text says why."""


def plain(record: Record, kept: Kept) -> bytes:
    """The message's bytes without compression, by the `grpc-encoding` of its direction. Raises `CompressionError`."""
    if not kept.compressed:
        return kept.data
    headers = record.headers if kept.direction is Direction.REQUEST else record.response_headers
    encoding = first_value(headers, b"grpc-encoding")
    window = _WINDOWS.get(encoding)
    if window is None:
        raise CompressionError(f"compressed by {encoding.decode('latin-1') or 'nothing that was named'}")
    inflater = zlib.decompressobj(window)
    try:
        data = inflater.decompress(kept.data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise CompressionError(f"not {encoding.decode()}: {error}") from error
    if inflater.unconsumed_tail:
        raise CompressionError(f"larger than {MAX_INFLATED_BYTES >> 20} MiB when decompressed")
    if not inflater.eof:
        raise CompressionError(f"not all of its {encoding.decode()}")
    return data


def declared_kind(record: Record, schema: Schema | None) -> StreamKind:
    """The kind of a call, by the schema that explains it; without one, as the traffic looked."""
    method = None if schema is None else schema.method(record.started.method)
    if method is None:
        return record.kind()
    return StreamKind.of(client_streams=method.client_streams, server_streams=method.server_streams)


class Decoder:
    """Messages as JSON."""

    def __init__(self, by_hash: Callable[[str], Schema | None], otherwise: Schema | None = None) -> None:
        """`otherwise` explains what was recorded without a schema."""
        self._by_hash = by_hash
        self._otherwise = otherwise

    def kind(self, record: Record) -> StreamKind:
        """As its method is declared, where that is known; else as the traffic looked."""
        return declared_kind(record, self._schema(record))

    def json(self, record: Record, kept: Kept) -> Any:
        """What `json.dumps` takes: by the schema, else as field numbers, else its bytes."""
        try:
            data = plain(record, kept)
        except CompressionError:
            return {UNDECODED: base64.b64encode(kept.data).decode("ascii")}
        schema = self._schema(record)
        method = None if schema is None else schema.method(record.started.method)
        if schema is not None and method is not None:
            try:
                return to_json(data, method.message(kept.direction), schema)
            except (TranscodeError, RecursionError):
                pass  # cut, or another version's: its bytes tell what they can
        fields = schemaless.describe(data)
        if fields is not None:
            return {FIELDS: fields}
        return {UNDECODED: base64.b64encode(data).decode("ascii")}

    def _schema(self, record: Record) -> Schema | None:
        known = None if record.schema is None else self._by_hash(record.schema)
        return known or self._otherwise
