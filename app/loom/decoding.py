"""What recorded messages mean: undone of their compression, and read by the schema that explained them then."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.loom.call import Direction, Message, StreamKind, first_value
from app.loom.compression import CompressionError, decompress
from app.loom.recording.lines import to_fields
from app.loom.recording.record import Record
from app.loom.schema import schemaless
from app.loom.schema.errors import TranscodeError
from app.loom.schema.schema import Schema
from app.loom.schema.transcoder import UNDECODED, from_json, to_json

MAX_INFLATED_BYTES: Final = 64 << 20
FIELDS: Final = "@fields"
"""Where a message stands that no schema explains: its fields by number."""


def plain(record: Record, kept: Message) -> bytes:
    """The message's bytes without compression, by the `grpc-encoding` of its direction. Raises `CompressionError`."""
    if not kept.compressed:
        return kept.data
    headers = record.headers if kept.direction is Direction.REQUEST else record.response_headers
    return decompress(kept.data, first_value(headers, b"grpc-encoding"), MAX_INFLATED_BYTES)


def declared_kind(record: Record, schema: Schema | None) -> StreamKind:
    """The kind of a call, by the schema that explains it; without one, as the traffic looked."""
    method = None if schema is None else schema.method(record.started.method)
    if method is None:
        return record.kind()
    return StreamKind.of(client_streams=method.client_streams, server_streams=method.server_streams)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a message says, as what `json.dumps` takes."""

    form: Literal["json", "fields", "base64"]
    """By its schema, by field numbers, or its bytes alone."""
    value: Any
    problem: str = ""
    """Why it is not in the form before."""

    def as_json(self) -> Any:
        """One value, whatever the form."""
        return self.value if self.form == "json" else {FIELDS if self.form == "fields" else UNDECODED: self.value}


def read(record: Record, kept: Message, schema: Schema | None) -> Reading:
    """By the schema, else as field numbers, else its bytes."""
    text = record.texts.get((kept.direction, kept.position))
    if text is not None:
        return Reading("json", json.loads(text))
    if len(kept.data) < kept.size:
        return _undecoded(kept.data, f"only the first {len(kept.data)} bytes were kept")
    try:
        data = plain(record, kept)
    except CompressionError as error:
        return _undecoded(kept.data, str(error))
    method = None if schema is None else schema.method(record.started.method)
    problem = "no schema: fields are shown by their numbers"
    if schema is not None and method is not None:
        try:
            return Reading("json", to_json(data, method.message(kept.direction), schema))
        except (TranscodeError, RecursionError) as error:  # another version's: its bytes tell what they can
            problem = str(error) or "nested too deeply"
    fields = schemaless.describe(data)
    if fields is None:
        return _undecoded(data, "neither its type's nor any message of protobuf")
    return Reading("fields", fields, problem)


def with_bytes(record: Record, schema: Schema | None) -> Record:
    """The same, where messages were recorded as JSON alone with their bytes made by the schema.

    Raises `TranscodeError` where there is no schema for them, or they don't fit it.
    """
    if not record.texts:
        return record
    method = None if schema is None else schema.method(record.started.method)
    if schema is None or method is None:
        raise TranscodeError("its messages were recorded as JSON alone, and their types are not known")
    made = copy.copy(record)
    made.texts = {}
    made.messages = []
    for kept in record.messages:
        text = record.texts.get((kept.direction, kept.position))
        if text is not None:
            data = from_json(json.loads(text), method.message(kept.direction), schema)
            kept = kept._replace(data=data, size=len(data), compressed=False)
        made.messages.append(kept)
    return made


class Decoder:
    """Messages by the schema that each was recorded under."""

    def __init__(self, by_hash: Callable[[str], Schema | None], otherwise: Schema | None = None) -> None:
        """`otherwise` explains what was recorded without a schema."""
        self._by_hash = by_hash
        self._otherwise = otherwise

    def schema(self, record: Record) -> Schema | None:
        """What explains its messages."""
        known = None if record.schema is None else self._by_hash(record.schema)
        return known or self._otherwise

    def kind(self, record: Record) -> StreamKind:
        """As its method is declared, where that is known; else as the traffic looked."""
        return declared_kind(record, self.schema(record))

    def json(self, record: Record, kept: Message) -> Any:
        """What `json.dumps` takes: by the schema, else as field numbers, else its bytes."""
        return read(record, kept, self.schema(record)).as_json()


def exported(record: Record, decoder: Decoder) -> dict[str, Any]:
    """A record in the session file's form, its messages decoded. May be made in any thread."""
    still = copy.copy(record)
    still.messages = list(record.messages)  # a live one gets more meanwhile
    fields = to_fields(still, decoder.kind(still))
    for name, direction in (("request", Direction.REQUEST), ("response", Direction.RESPONSE)):
        for shown, kept in zip(fields[name], still.of(direction), strict=True):
            shown["json"] = json.dumps(decoder.json(still, kept), ensure_ascii=False)
    return fields


def _undecoded(data: bytes, problem: str) -> Reading:
    return Reading("base64", base64.b64encode(data).decode("ascii"), problem)
