"""Messages and metadata, changed as the rules say, or left as they were."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from app.loom.call import Direction, Headers, Status
from app.loom.rules.engine import CallRules, MutationError, Ruleset
from app.loom.rules.file import parse
from app.loom.rules.model import Abort
from app.loom.schema.schema import Schema, new_message
from app.loom.schema.transcoder import from_json, to_json
from tests.loom.schema.conftest import shop as shop

BEFORE: dict[str, Any] = {
    "id": "1",
    "customerName": "Bo",
    "prices": [{"currency": "EUR", "units": "5"}, {"currency": "USD"}],
    "byCountry": {"nl": {"units": "-1"}, "de": {}},
    "flags": {"true": 1},
    "numbers": ["7", "8"],
    "at": "2026-01-02T03:04:05Z",
    "extra": {"@type": "type.googleapis.com/shop.Money", "currency": "USD"},
    "byOrder": {"note": "n", "prices": [{}]},
}


def rules(*fields: dict[str, Any]) -> CallRules:
    import json

    return Ruleset(parse(json.dumps([{"method": "*", **each} for each in fields]), "x")).for_call("/a.S/M")


def changed(schema: Schema, before: dict[str, Any], *fields: dict[str, Any]) -> Any:
    order = schema.type_named("shop.Order")
    assert order is not None
    data = from_json(before, order, schema)
    return to_json(rules(*fields).message(Direction.REQUEST, data, new_message(order)), order, schema)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"set": {"customer_name": "Ada"}}, {"customerName": "Ada"}),
        ({"set": {"customerName": "Ada"}}, {"customerName": "Ada"}),
        ({"set": {"prices.1.units": 9}}, {"prices": [{"currency": "EUR", "units": "5"}, {"currency": "USD", "units": "9"}]}),  # noqa: E501
        ({"set": {"prices.0": {"units": "2"}}}, {"prices": [{"units": "2"}, {"currency": "USD"}]}),
        ({"set": {"prices": [{"units": "2"}]}}, {"prices": [{"units": "2"}]}),
        ({"set": {"numbers.1": 9}}, {"numbers": ["7", "9"]}),
        ({"set": {"byCountry.nl.currency": "X"}}, {"byCountry": {"nl": {"units": "-1", "currency": "X"}, "de": {}}}),
        ({"set": {"byCountry.fr": {"units": 3}}}, {"byCountry": {"nl": {"units": "-1"}, "de": {}, "fr": {"units": "3"}}}),  # noqa: E501
        ({"set": {"flags.false": 2}}, {"flags": {"true": 1, "false": 2}}),
        ({"set": {"at": "2030-01-01T00:00:00Z"}}, {"at": "2030-01-01T00:00:00Z"}),
        ({"set": {"maybe": 4}}, {"maybe": "4"}),
        ({"set": {"byOrder.byOrder.id": 3}}, {"byOrder": {"note": "n", "prices": [{}], "byOrder": {"id": "3"}}}),
        ({"set": {"byCard": "visa"}}, {"byCard": "visa", "byOrder": None}),
        ({"set": {"size": "LARGE", "token": "AQ=="}}, {"size": "LARGE", "token": "AQ=="}),
        ({"set": {"extra": {"@type": "type.googleapis.com/shop.Older", "id": 4}}},
         {"extra": {"@type": "type.googleapis.com/shop.Older", "id": "4"}}),
        ({"delete": ["customerName", "at"]}, {"customerName": None, "at": None}),
        ({"delete": ["prices.0"]}, {"prices": [{"currency": "USD"}]}),
        ({"delete": ["prices.0.currency"]}, {"prices": [{"units": "5"}, {"currency": "USD"}]}),
        ({"delete": ["prices.7", "byCountry.xx", "byCountry.xx.units", "byOrder.byOrder.id"]}, {}),
        ({"delete": ["byCountry.nl", "flags.true"]}, {"byCountry": {"de": {}}, "flags": None}),
        ({"delete": ["byCountry.nl.units"]}, {"byCountry": {"nl": {}, "de": {}}}),
    ],
)  # fmt: skip
def test_a_path_leads_to_what_is_set_or_deleted(shop: Schema, edit: dict[str, Any], expected: dict[str, Any]) -> None:
    after = {key: value for key, value in (BEFORE | expected).items() if value is not None}
    assert changed(shop, BEFORE, edit) == after


def test_rules_apply_in_the_order_of_the_file_and_only_their_way(shop: Schema) -> None:
    edits: list[dict[str, Any]] = [
        {"set": {"note": "one"}, "direction": "request"},
        {"set": {"note": "two"}},
        {"set": {"note": "three"}, "direction": "response"},
    ]
    assert changed(shop, {}, *edits) == {"note": "two"}
    assert rules(edits[2]).edits(Direction.RESPONSE)
    assert not rules(edits[2]).edits(Direction.REQUEST)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"set": {"nope": 1}}, "shop.Order has no nope"),
        ({"delete": ["byOrder.nope"]}, "shop.Order has no nope"),
        ({"set": {"prices.2.units": 1}}, "the list has 2 entries, and no 2"),
        ({"set": {"prices.x.units": 1}}, "and no x"),
        ({"set": {"id.deeper": 1}}, "id is a plain value"),
        ({"set": {"numbers.0.deeper": 1}}, "list of plain values"),
        ({"set": {"flags.true.deeper": 1}}, "map of plain values"),
        ({"set": {"id": "x"}}, "rule 1: id: "),
        ({"set": {"flags.maybe": 1}}, "rule 1: flags.maybe: "),
        ({"set": {"note": "x", "size": "HUGE"}}, "rule 1: size: "),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_half_done(shop: Schema, edit: dict[str, Any], says: str) -> None:
    with pytest.raises(MutationError, match=says) as refused:
        changed(shop, BEFORE, edit)
    assert "\n" not in str(refused.value)


def test_fields_that_the_schema_does_not_know_survive(shop: Schema) -> None:
    newer, older = shop.type_named("shop.Newer"), shop.type_named("shop.Older")
    assert newer is not None
    assert older is not None
    data = from_json({"id": "1", "secret": "kept"}, newer, shop)
    after = rules({"set": {"id": 2}}).message(Direction.REQUEST, data, new_message(older))
    assert to_json(after, newer, shop) == {"id": "2", "secret": "kept"}


def test_a_message_that_is_none_or_of_no_known_type_is_not_touched(shop: Schema) -> None:
    order = shop.type_named("shop.Order")
    assert order is not None
    for empty, says in [(None, "not known"), (new_message(order), "no shop.Order")]:
        with pytest.raises(MutationError, match=says):
            rules({"set": {"id": 2}}).message(Direction.REQUEST, b"\xff", empty)


def test_metadata_is_edited_and_the_rest_keeps_its_order() -> None:
    headers: Headers = ((b":path", b"/a"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"x-c", b"4"))
    edits = {"set": {"x-a": "9"}, "add": {"x-c": ["5", "6"]}, "delete": ["x-b", "x-z"]}
    assert rules({"headers": edits}).headers(Direction.REQUEST, headers) == (
        (b":path", b"/a"),
        (b"x-c", b"4"),
        (b"x-a", b"9"),
        (b"x-c", b"5"),
        (b"x-c", b"6"),
    )
    other_way = rules({"headers": edits, "direction": "response"})
    assert other_way.headers(Direction.REQUEST, headers) == headers


def test_faults_add_up_and_a_share_is_drawn_for_each_call() -> None:
    chances = iter([0.2, 0.7])
    text = """[{"method": "*", "delay": 100}, {"method": "*", "delay": 50},
        {"method": "a.S/*", "abort": {"status": "ABORTED", "message": "m"}, "share": 0.5}]"""
    ruleset = Ruleset(parse(text, "x"), chance=lambda: next(chances))
    assert ruleset.for_call("/a.S/M").abort == Abort(Status.ABORTED, "m")
    assert ruleset.for_call("/a.S/M").abort is None
    assert ruleset.for_call("/b.S/M").delay_s == pytest.approx(0.15)
    assert bool(ruleset)
    assert not Ruleset()


def test_a_message_that_would_lack_what_its_type_requires_is_left_as_it_was() -> None:
    file = FileDescriptorProto(name="old.proto", package="old", syntax="proto2")
    field = file.message_type.add(name="Old").field.add(name="name", number=1)
    field.type, field.label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_REQUIRED
    old = Schema([file]).type_named("old.Old")
    assert old is not None
    with pytest.raises(MutationError, match="missing required fields: name"):
        rules({"delete": ["name"]}).message(Direction.REQUEST, b"\n\x01a", new_message(old))
    assert rules({"set": {"name": "b"}}).message(Direction.REQUEST, b"\n\x01a", new_message(old)) == b"\n\x01b"
