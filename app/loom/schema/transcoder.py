"""Messages as JSON, and JSON as messages, after protobuf's JSON mapping (https://protobuf.dev/programming-guides/json/).

What the mapping has no place for is kept, under names that no field can have: `@unknown` holds the fields that the
schema does not know, and an `Any` of an unknown type has its bytes under `@undecoded`. Both are taken back by
`from_json`, so that a message goes through unharmed.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from google.rpc.status_pb2 import Status

from app.loom.schema.errors import TranscodeError
from app.loom.schema.schema import Schema, new_message
from app.loom.schema.schemaless import START_GROUP, Field, describe, describe_fields, encode

MAX_DEPTH: Final = 100
"""Of nesting: protobuf's own parsers refuse what is nested more deeply."""
UNKNOWN: Final = "@unknown"
UNDECODED: Final = "@undecoded"
TYPE: Final = "@type"

_ANY: Final = "google.protobuf.Any"
_VALUE_ONLY: Final = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "BoolValue", "BytesValue", "DoubleValue",
        "FloatValue", "Int32Value", "Int64Value", "StringValue", "UInt32Value", "UInt64Value", "Empty",
    )
)  # fmt: skip
"""Types with a JSON form of their own, which within an `Any` stands under `value`."""
_AS_TEXT: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_SINT64,
    }
)


def to_json(data: bytes, descriptor: Descriptor, schema: Schema) -> Any:
    """A serialised message as what `json.dumps` takes. Raises `TranscodeError` where it is none of this type."""
    message = new_message(descriptor)
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise TranscodeError(f"the bytes are no {descriptor.full_name}") from error
    return _Printer(schema).message(message, 0)


def status_details(data: bytes, schema: Schema) -> Any:
    """The `google.rpc.Status` of a `grpc-status-details-bin` trailer, its base64 undone."""
    return to_json(data, Status.DESCRIPTOR, schema)


def from_json(value: Any, descriptor: Descriptor, schema: Schema) -> bytes:
    """What `to_json` made, edited or not, as bytes. Raises `TranscodeError`, naming what does not fit."""
    message = new_message(descriptor)
    if not isinstance(value, dict) and descriptor.full_name not in _VALUE_ONLY:
        raise TranscodeError(f"not a {descriptor.full_name}: it is written as a JSON object")
    try:
        _Reader(schema).read(value, message)
        return message.SerializeToString(deterministic=True)
    except json_format.ParseError as error:
        raise TranscodeError(str(error).partition("\n")[0]) from error
    except (EncodeError, RecursionError, ValueError, TypeError, KeyError) as error:
        raise TranscodeError(f"not a {descriptor.full_name}: {error}") from error


class _Printer:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def message(self, message: Message, depth: int) -> Any:
        name = message.DESCRIPTOR.full_name
        if name == _ANY:
            return self._any(message, depth)
        if name in _VALUE_ONLY:
            try:
                return json_format.MessageToDict(message, descriptor_pool=self._schema.pool)
            except (ValueError, json_format.SerializeToJsonError):
                pass  # out of the type's range: its fields tell
        if depth >= MAX_DEPTH:
            return {UNDECODED: _base64(message.SerializeToString())}
        shown = {self._name(field): self._field(field, value, depth) for field, value in message.ListFields()}
        unknown = _fields(UnknownFieldSet(message))
        if unknown:
            shown[UNKNOWN] = {"base64": _base64(encode(unknown)), "fields": describe_fields(unknown)}
        return shown

    def _any(self, message: Message, depth: int) -> dict[str, Any]:
        packed = AnyMessage.FromString(message.SerializeToString())
        if not packed.type_url and not packed.value:
            return {}
        found = self._schema.type_named(packed.type_url.rpartition("/")[2])
        if found is not None and depth < MAX_DEPTH:
            inner = new_message(found)
            try:
                inner.ParseFromString(packed.value)
            except DecodeError:
                pass
            else:
                shown = self.message(inner, depth + 1)
                alone = found.full_name in _VALUE_ONLY or found.full_name == _ANY
                return {TYPE: packed.type_url, "value": shown} if alone else {TYPE: packed.type_url, **shown}
        return {TYPE: packed.type_url, UNDECODED: _base64(packed.value), "fields": describe(packed.value)}

    def _field(self, field: FieldDescriptor, value: Any, depth: int) -> Any:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            of = entry.fields_by_name["value"]
            return {_map_key(key): self._one(of, value[key], depth) for key in value}
        if field.is_repeated:
            return [self._one(field, each, depth) for each in value]
        return self._one(field, value, depth)

    def _one(self, field: FieldDescriptor, value: Any, depth: int) -> Any:
        if field.message_type is not None:
            return self.message(value, depth + 1)
        if field.enum_type is not None:
            if field.enum_type.full_name == "google.protobuf.NullValue":
                return None
            named = field.enum_type.values_by_number.get(value)
            return value if named is None else named.name
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _base64(value)
        if field.type in _AS_TEXT:
            return str(value)
        if isinstance(value, float):
            return _number(value, single=field.type == FieldDescriptor.TYPE_FLOAT)
        return value

    @staticmethod
    def _name(field: FieldDescriptor) -> str:
        return f"[{field.full_name}]" if field.is_extension else field.json_name


class _Reader:
    """`json_format.ParseDict` without what that has no place for, which is put back into the message it made."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def read(self, value: Any, message: Message) -> None:
        plain = self._plain(value)
        json_format.ParseDict(plain, message, descriptor_pool=self._schema.pool, max_recursion_depth=MAX_DEPTH)
        self._restore(value, message)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._plain(each) for each in value]
        if not isinstance(value, dict):
            return value
        if TYPE in value:
            return {}  # put back whole
        return {key: self._plain(each) for key, each in value.items() if key != UNKNOWN}

    def _restore(self, value: Any, message: Message) -> None:
        if not isinstance(value, dict):
            return
        if message.DESCRIPTOR.full_name == _ANY and TYPE in value:
            message.ParseFromString(self._packed(value).SerializeToString())
            return
        if UNKNOWN in value:
            message.MergeFromString(_unbase64(value[UNKNOWN]["base64"]))
        for field, inner in self._nested(value, message):
            self._restore(field, inner)

    def _nested(self, value: dict[str, Any], message: Message) -> Iterator[tuple[Any, Message]]:
        if message.DESCRIPTOR.full_name in _VALUE_ONLY:
            return
        for field, present in message.ListFields():
            given = value.get(field.json_name, value.get(field.name))
            entry = field.message_type
            if entry is None or given is None:
                continue
            if entry.GetOptions().map_entry:
                if entry.fields_by_name["value"].message_type is not None:
                    by_text = {_map_key(key): key for key in present}
                    yield from ((each, present[by_text[key]]) for key, each in given.items() if key in by_text)
            elif field.is_repeated:
                yield from zip(given, present, strict=True)
            else:
                yield given, present

    def _packed(self, value: dict[str, Any]) -> AnyMessage:
        url = value[TYPE]
        if not isinstance(url, str):
            raise TranscodeError(f"{TYPE} is the URL of a type, such as type.googleapis.com/google.protobuf.Empty")
        if UNDECODED in value:
            return AnyMessage(type_url=url, value=_unbase64(value[UNDECODED]))
        found = self._schema.type_named(url.rpartition("/")[2])
        if found is None:
            raise TranscodeError(f"the type {url} is not known here; give its bytes in base64 as {UNDECODED}")
        inner = new_message(found)
        alone = found.full_name in _VALUE_ONLY or found.full_name == _ANY
        self.read(value.get("value") if alone else {k: v for k, v in value.items() if k != TYPE}, inner)
        return AnyMessage(type_url=url, value=inner.SerializeToString(deterministic=True))


def _fields(unknown: UnknownFieldSet) -> list[Field]:
    return [
        Field(each.field_number, each.wire_type, _fields(each.data) if each.wire_type == START_GROUP else each.data)
        for each in (unknown[place] for place in range(len(unknown)))
    ]


def _map_key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _number(value: float, *, single: bool) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if not single:
        return value
    shorter = (float(f"{value:.{digits}g}") for digits in range(6, 9))
    return next((short for short in shorter if struct.unpack("<f", struct.pack("<f", short))[0] == value), value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unbase64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise TranscodeError("not base64") from error
