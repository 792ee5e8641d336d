"""Bytes to JSON and back: nothing is lost, whatever the schema knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from app.loom.schema.errors import TranscodeError
from app.loom.schema.schema import Schema, new_message
from app.loom.schema.transcoder import UNDECODED, UNKNOWN, from_json, status_details, to_json

ORDER: dict[str, Any] = {
    "id": "9223372036854775807",
    "customerName": "Zoë <b>",
    "token": "AP8=",
    "size": "LARGE",
    "weight": 0.1,
    "share": 0.1,
    "paid": True,
    "prices": [{"currency": "EUR", "units": "5"}, {}],
    "byCountry": {"nl": {"units": "-1"}},
    "flags": {"true": 1, "false": -2},
    "numbers": ["18446744073709551615", "0"],
    "at": "2026-01-02T03:04:05.000006Z",
    "took": "1.500s",
    "extra": {"@type": "type.googleapis.com/shop.Money", "currency": "USD"},
    "free": {"a": [1.0, None, "x", {"b": False}]},
    "mask": "name,customerName",
    "maybe": "7",
    "byOrder": {"byCard": "visa", "extra": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}},
    "delta": "-3",
    "big": "9",
    "note": "",
    "sizes": ["SMALL", 77],
    "extras": [{}, {"@type": "type.googleapis.com/shop.Older", "id": "3"}],
    "small": -4,
}


def of(schema: Schema, name: str) -> Descriptor:
    found = schema.type_named(name)
    assert found is not None
    return found


def test_a_message_is_shown_as_the_json_mapping_says_and_comes_back_byte_for_byte(shop: Schema) -> None:
    order = of(shop, "shop.Order")
    data = from_json(ORDER, order, shop)
    shown = to_json(data, order, shop)
    assert shown == ORDER
    assert json.loads(json.dumps(shown)) == shown
    assert from_json(shown, order, shop) == data


def test_it_is_what_protobufs_own_printer_shows_where_that_can_show_it(shop: Schema) -> None:
    order = of(shop, "shop.Order")
    message = new_message(order)
    message.ParseFromString(from_json(ORDER, order, shop))
    assert to_json(message.SerializeToString(), order, shop) == json_format.MessageToDict(
        message, descriptor_pool=shop.pool
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity"), (1e300, 1e300), (-0.0, -0.0)],
)
def test_numbers_that_json_has_no_form_for_are_text(shop: Schema, value: Any, shown: Any) -> None:
    order = of(shop, "shop.Order")
    assert to_json(from_json({"weight": value}, order, shop), order, shop) == {"weight": shown}


def test_fields_that_the_schema_does_not_know_are_shown_and_kept(shop: Schema) -> None:
    newer = {"id": "1", "secret": "hidden", "price": {"units": "4"}, "rate": 0.5, "bits": 7}
    data = from_json(newer, of(shop, "shop.Newer"), shop)
    older = of(shop, "shop.Older")
    shown = to_json(data, older, shop)
    assert shown["id"] == "1"
    assert [(each["field"], each["wire"]) for each in shown[UNKNOWN]["fields"]] == [
        (96, "i32"), (97, "i64"), (98, "len"), (99, "len"),
    ]  # fmt: skip
    assert shown[UNKNOWN]["fields"][3]["value"] == "hidden"
    edited = from_json({**shown, "id": "2"}, older, shop)
    assert to_json(edited, of(shop, "shop.Newer"), shop) == {**newer, "id": "2"}


def test_unknown_fields_deep_inside_are_kept_too(shop: Schema) -> None:
    order, older = of(shop, "shop.Order"), of(shop, "shop.Older")
    inner = from_json({"id": "1", "secret": "s"}, of(shop, "shop.Newer"), shop)
    data = from_json({"prices": [{}, {}], "byCountry": {"x": {}}, "byOrder": {"prices": [{}]}}, order, shop)
    message: Any = new_message(order)
    message.ParseFromString(data)
    for money in (message.prices[1], message.by_country["x"], message.by_order.prices[0]):
        money.MergeFromString(inner[2:])
    shown = to_json(message.SerializeToString(deterministic=True), order, shop)
    assert UNKNOWN in shown["prices"][1]
    assert UNKNOWN in shown["byCountry"]["x"]
    assert UNKNOWN in shown["byOrder"]["prices"][0]
    assert from_json(shown, order, shop) == message.SerializeToString(deterministic=True)
    assert older is not None


def test_an_any_of_an_unknown_type_keeps_its_type_and_its_bytes(shop: Schema) -> None:
    order = of(shop, "shop.Order")
    message: Any = new_message(order)
    message.extra.type_url = "type.example.com/strange.Thing"
    message.extra.value = b"\x08\x96\x01"
    data = message.SerializeToString()
    shown = to_json(data, order, shop)
    assert shown["extra"] == {
        "@type": "type.example.com/strange.Thing",
        UNDECODED: "CJYB",
        "fields": [{"field": 1, "wire": "varint", "value": 150}],
    }
    assert from_json(shown, order, shop) == data


def test_an_any_whose_bytes_are_not_of_its_type_is_shown_as_bytes(shop: Schema) -> None:
    order = of(shop, "shop.Order")
    message: Any = new_message(order)
    message.extra.type_url = "type.googleapis.com/shop.Money"
    message.extra.value = b"\x0a\xff"
    shown = to_json(message.SerializeToString(), order, shop)
    assert shown["extra"][UNDECODED] == "Cv8="
    assert from_json(shown, order, shop) == message.SerializeToString()


def test_a_timestamp_out_of_its_range_shows_its_fields(shop: Schema) -> None:
    order = of(shop, "shop.Order")
    message: Any = new_message(order)
    message.at.seconds = 1 << 60
    assert to_json(message.SerializeToString(), order, shop) == {"at": {"seconds": str(1 << 60)}}


def test_status_details_are_decoded_though_the_backend_does_not_know_their_types(shop: Schema) -> None:
    violation = BadRequest.FieldViolation(field="id", description="must be 1 or more")
    detail = AnyMessage()
    detail.Pack(BadRequest(field_violations=[violation]))
    data = Status(code=3, message="no", details=[detail]).SerializeToString()
    assert status_details(data, shop) == {
        "code": 3,
        "message": "no",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "id", "description": "must be 1 or more"}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"nope": 1}, "nope"),
        ({"id": "x"}, "id"),
        ({"size": "HUGE"}, "size"),
        ([1], "Order"),
        ("text", "Order"),
        (None, "Order"),
        ({"token": 7}, "token"),
        ({"extra": {"@type": "type.googleapis.com/no.Such"}}, "no.Such"),
        ({"extra": {"@type": 7}}, "@type"),
        ({"extra": {"@type": "x/y", UNDECODED: "%"}}, "base64"),
        ({UNKNOWN: 7}, "Order"),
        ({UNKNOWN: {"base64": "%"}}, "base64"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_name(shop: Schema, value: Any, names: str) -> None:
    with pytest.raises(TranscodeError, match=names) as refused:
        from_json(value, of(shop, "shop.Order"), shop)
    assert "\n" not in str(refused.value)


def test_nesting_has_a_bound_and_no_stack_overflows(shop: Schema) -> None:
    order = of(shop, "shop.Order")
    data = b""
    for _ in range(99):
        size = len(data)
        head = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        data = b"\x9a\x01" + head + data
    assert isinstance(to_json(data, order, shop), dict)
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"byOrder": deep}
    with pytest.raises(TranscodeError):
        from_json(deep, order, shop)


@given(st.binary(max_size=200))
def test_any_bytes_are_shown_or_refused(shop: Schema, data: bytes) -> None:
    order = of(shop, "shop.Order")
    try:
        shown = to_json(data, order, shop)
    except TranscodeError:
        return
    json.dumps(shown)
    again = from_json(shown, order, shop)
    assert to_json(again, order, shop) == shown
