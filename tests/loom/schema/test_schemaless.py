"""The wire format without a schema."""

from __future__ import annotations

import json

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from app.loom.schema.schemaless import MAX_DEPTH, MAX_FIELDS, Field, describe, encode, parse
from app.proto.template.v1 import template_pb2


def test_fields_are_shown_with_number_wire_type_and_what_they_may_be() -> None:
    data = encode(
        [
            Field(1, 0, 150),
            Field(2, 2, "Zoë\n".encode()),
            Field(3, 2, encode([Field(1, 0, 1 << 63)])),
            Field(4, 1, 0x3FF0000000000000),
            Field(5, 5, 0x3F800000),
            Field(6, 2, b"\xff\xfe"),
            Field(7, 3, [Field(1, 0, 2)]),
            Field(1, 0, 0),
            Field(8, 2, b""),
        ]
    )
    assert describe(data) == [
        {"field": 1, "wire": "varint", "value": 150},
        {"field": 2, "wire": "len", "value": "Zoë\n"},
        {"field": 3, "wire": "len", "message": [{"field": 1, "wire": "varint", "value": str(1 << 63)}]},
        {"field": 4, "wire": "i64", "value": str(0x3FF0000000000000), "float": "1.0"},
        {"field": 5, "wire": "i32", "value": 0x3F800000, "float": "1.0"},
        {"field": 6, "wire": "len", "base64": "//4="},
        {"field": 7, "wire": "group", "value": [{"field": 1, "wire": "varint", "value": 2}]},
        {"field": 1, "wire": "varint", "value": 0},
        {"field": 8, "wire": "len", "value": ""},
    ]


def test_a_real_message_is_parsed_whole() -> None:
    data = template_pb2.DESCRIPTOR.serialized_pb
    fields = parse(data)
    assert fields is not None
    assert encode(fields) == data
    assert FileDescriptorProto.FromString(encode(fields)).name == template_pb2.DESCRIPTOR.name


@given(st.binary(max_size=300))
def test_any_bytes_are_fields_or_none_and_fields_come_back_the_same(data: bytes) -> None:
    fields = parse(data)
    if fields is None:
        assert describe(data) is None
    else:
        json.dumps(describe(data))
        assert parse(encode(fields)) == fields


def test_what_is_too_deep_or_too_much_is_shown_as_bytes() -> None:
    deep = b"\xff"
    for _ in range(200):
        deep = encode([Field(1, 2, deep)])
    shown = describe(deep)
    assert shown is not None
    depth = 0
    while "message" in shown[0]:
        shown, depth = shown[0]["message"], depth + 1
    assert depth == MAX_DEPTH - 1
    assert "base64" in shown[0]
    assert parse(b"\x08\x00" * (MAX_FIELDS + 1)) is None
    assert parse(b"\x0b" * 10_000) is None
