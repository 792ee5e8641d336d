"""Protobuf's wire format without a schema: field numbers, wire types, and guesses at what is nested.

The format is that of https://protobuf.dev/programming-guides/encoding/. Groups, which proto2 alone has, are taken as
nested fields.
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Final, NamedTuple

MAX_DEPTH: Final = 32
"""How deep guesses go; what is nested more deeply is shown as bytes."""
MAX_FIELDS: Final = 100_000
"""Most fields of a message that are looked at, nested ones included; a message with more is shown as bytes."""

VARINT, I64, LEN, START_GROUP, END_GROUP, I32 = range(6)
_NAMES: Final = {VARINT: "varint", I64: "i64", LEN: "len", START_GROUP: "group", I32: "i32"}


class Field(NamedTuple):
    """One field as it stands on the wire."""

    number: int
    wire_type: int
    value: int | bytes | list[Field]
    """An unsigned number; the bytes of a length-delimited field; a group's fields."""


class _MalformedError(Exception):
    pass


def parse(data: bytes) -> list[Field] | None:
    """The fields of a message, `None` where the bytes are none, or one with more than `MAX_FIELDS` fields."""
    try:
        fields, end = _parse(data, 0, None, [MAX_FIELDS], 0)
    except _MalformedError:
        return None
    return fields if end == len(data) else None


def encode(fields: list[Field]) -> bytes:
    """The bytes of these fields: those that `parse` was given, but for varints that were longer than need be."""
    out = bytearray()
    for number, wire_type, value in fields:
        out += _varint(number << 3 | wire_type)
        if isinstance(value, list):
            out += encode(value) + _varint(number << 3 | END_GROUP)
        elif isinstance(value, bytes):
            out += _varint(len(value)) + value
        elif wire_type == VARINT:
            out += _varint(value)
        else:
            out += value.to_bytes(8 if wire_type == I64 else 4, "little")
    return bytes(out)


def describe(data: bytes) -> list[dict[str, Any]] | None:
    """For a person, as JSON: the fields in their order, nested ones where the bytes may be a message."""
    fields = parse(data)
    return None if fields is None else [_described(field, 1) for field in fields]


def describe_fields(fields: list[Field]) -> list[dict[str, Any]]:
    """As `describe`, of fields that have been parsed already."""
    return [_described(field, 1) for field in fields]


def _parse(data: bytes, at: int, group: int | None, left: list[int], depth: int) -> tuple[list[Field], int]:
    fields: list[Field] = []
    end = len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        left[0] -= 1
        if not 1 <= number < 1 << 29 or left[0] < 0:
            raise _MalformedError
        value: int | bytes | list[Field]
        if wire_type == VARINT:
            value, at = _read_varint(data, at)
        elif wire_type in (I64, I32):
            size = 8 if wire_type == I64 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        elif wire_type == LEN:
            size, at = _read_varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire_type == START_GROUP and depth < MAX_DEPTH:
            value, at = _parse(data, at, number, left, depth + 1)
        elif wire_type == END_GROUP and number == group:
            return fields, at
        else:
            raise _MalformedError
        if at > end:
            raise _MalformedError
        fields.append(Field(number, wire_type, value))
    if group is not None:
        raise _MalformedError
    return fields, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise _MalformedError


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _described(field: Field, depth: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"field": field.number, "wire": _NAMES[field.wire_type]}
    value = field.value
    if isinstance(value, list):
        return shown | {"value": [_described(each, depth + 1) for each in value]}
    if isinstance(value, bytes):
        return shown | _guess(value, depth)
    if field.wire_type == VARINT:
        # 64-bit numbers are strings in JSON, as in protobuf's own mapping: not every reader keeps them whole.
        return shown | {"value": value if value < 1 << 53 else str(value)}
    code, size = ("d", 8) if field.wire_type == I64 else ("f", 4)
    (as_float,) = struct.unpack("<" + code, value.to_bytes(size, "little"))
    return shown | {"value": value if value < 1 << 53 else str(value), "float": repr(as_float)}


def _guess(value: bytes, depth: int) -> dict[str, Any]:
    """Text where all of it can be read, else a message where it can be one, else bytes."""
    text = _readable(value)
    if text is not None:
        return {"value": text}
    fields = parse(value) if value and depth < MAX_DEPTH else None
    if fields:
        return {"message": [_described(each, depth + 1) for each in fields]}
    return {"base64": base64.b64encode(value).decode("ascii")}


def _readable(value: bytes) -> str | None:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\t\r\n" for char in text) else None
