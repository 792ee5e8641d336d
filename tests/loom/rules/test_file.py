"""The rules file is taken whole or refused whole, with the line and the reason."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.loom.call import Direction, Status
from app.loom.rules.file import MAX_FILE_BYTES, MAX_RULES, RulesError, load, parse
from app.loom.rules.model import Abort, HeaderEdits, Rule

GOOD = """{
  "rules": [
    {"method": "/shop.Shop/Get*", "direction": "request", "set": {"user.name": "Ada", "items.0.units": 3},
     "delete": ["user.token"],
     "headers": {"set": {"x-tenant": "7"}, "add": {"x-tag": ["a", "b"]}, "delete": ["x-old"]}},
    {"method": "*", "delay": 250, "share": 0.1},
    {"method": "shop.Shop/Buy", "abort": {"status": "UNAVAILABLE", "message": "sold out"}},
    {"method": "shop.Shop/*"}
  ]
}"""


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(GOOD)
    assert load(path) == (
        Rule(
            1,
            "shop.Shop/Get*",
            Direction.REQUEST,
            ((("user", "name"), "Ada"), (("items", "0", "units"), 3)),
            (("user", "token"),),
            HeaderEdits({"x-tenant": "7"}, (("x-tag", "a"), ("x-tag", "b")), frozenset({"x-old"})),
        ),
        Rule(2, "*", delay_s=0.25, share=0.1),
        Rule(3, "shop.Shop/Buy", abort=Abort(Status.UNAVAILABLE, "sold out")),
        Rule(4, "shop.Shop/*"),
    )
    assert parse(json.dumps(json.loads(GOOD)["rules"]), "x") == load(path)
    assert parse('{"rules": []}', "x") == parse("[]", "x") == ()


@pytest.mark.parametrize(
    ("method", "path", "matches"),
    [
        ("a.S/M", "/a.S/M", True),
        ("/a.S/M", "/a.S/M", True),
        ("a.S/M", "/a.S/MM", False),
        ("a.S/*", "/a.S/Get", True),
        ("*", "/a.S/Get", True),
        ("a.S/Get*", "/a.S/Put", False),
        ("a.s/m", "/a.S/M", False),
    ],
)
def test_a_method_is_a_path_or_a_glob(method: str, path: str, matches: bool) -> None:
    assert Rule(1, method.removeprefix("/")).is_for(path) is matches


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"rules": [], "rules": [{"method": "*"}]}', '"rules" is given twice'),
        ('[{"method": "*", "set": {"a": 1, "b": 2, "a": 3}}]', '"a" is given twice'),
        ('[{"method": "*", "delay": ' + "1" * 5_000 + "}]", "too many digits"),
        ('[{"method": "*", "abort": {"status": "NOT_FOUND", "message": "\\ud800"}}]', "surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_means_nothing_or_two_things_is_refused(text: str, says: str) -> None:
    with pytest.raises(RulesError, match=says):
        parse(text, "f")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('{\n"rules": [\n{]}', 3, "not JSON"),
        ("7", 1, "a list of rules"),
        ('{"rules": {}}', 1, 'as a list under "rules"'),
        ('{"\\u0072ules": []}', 1, '"rules" is written without escapes'),
        ('{"ruels": []}', 1, "did you mean rules?"),
        ('[\n{"method": "a/b"},\n7\n]', 3, "rule 2: a rule is a JSON object"),
        ("[\n{}\n]", 2, "rule 1: method: which one?"),
        ('[{"method": "a/b",\n"direcshun": "request"}]', 2, "did you mean direction?"),
        ('[{"method": "a/b",\n"direction": "up"}]', 2, "request, response or both"),
        ('[{"method": "a/b", "direction": ["request"]}]', 1, "request, response or both"),
        ('[{"method": "a/b",\n\n"set": ["x"]}]', 3, "set: an object"),
        ('[{"method": "a/b", "set": {"a..b": 1}}]', 1, "no path"),
        ('[{"method": "a/b", "delete": "x"}]', 1, "a list of texts"),
        ('[{"method": "a/b", "delay": -1}]', 1, "0 to"),
        ('[{"method": "a/b", "delay": NaN}]', 1, "0 to"),
        ('[{"method": "a/b", "delay": true}]', 1, "0 to"),
        ('[{"method": "a/b", "share": 1.5}]', 1, "from 0 to 1"),
        ('[{"method": "a/b", "abort": {"status": "NOPE"}}]', 1, "CANCELLED"),
        ('[{"method": "a/b", "abort": {"status": "OK"}}]', 1, "is none of"),
        ('[{"method": "a/b", "abort": 14}]', 1, "an object such as"),
        ('[{"method": "a/b", "abort": {"status": "ABORTED", "message": 1}}]', 1, "a text"),
        ('[{"method": "a/b", "abort": {"status": "ABORTED", "details": 1}}]', 1, 'no "details"'),
        ('[{"method": "a/b", "abort": {"status": "ABORTED"}, "set": {"a": 1}}]', 1, "nothing to edit"),
        ('[{"method": "a/b", "headers": {"set": {"X-Up": "1"}}}]', 1, "lower-case"),
        ('[{"method": "a/b", "headers": {"set": {":path": "/x"}}}]', 1, "no name"),
        ('[{"method": "a/b", "headers": {"set": {"grpc-timeout": "1S"}}}]', 1, "belongs to the protocol"),
        ('[{"method": "a/b", "headers": {"set": {"x": "a\\r\\nb"}}}]', 1, "printable ASCII"),
        ('[{"method": "a/b", "headers": {"add": {"x": [7]}}}]', 1, "printable ASCII"),
        ('[{"method": "a/b", "headers": {"put": {}}}]', 1, 'no "put"'),
        ("[" + ",".join(['{"method": "a/b"}'] * (MAX_RULES + 1)) + "]", None, "are the most"),
    ],
)
def test_a_bad_file_is_refused_with_the_line_and_the_reason(text: str, line: int | None, says: str) -> None:
    with pytest.raises(RulesError) as refused:
        parse(text, "rules.json")
    assert says in str(refused.value)
    assert str(refused.value).startswith("rules.json:" if line is None else f"rules.json:{line}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(b"\xff")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    for path, says in [(tmp_path / "gone", "No such file"), (bad, "not UTF-8"), (large, "larger than")]:
        with pytest.raises(RulesError, match=says) as refused:
            load(path)
        assert str(path) in str(refused.value)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["request", "a/b", "ABORTED"]),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["rules", "method", "set", "delete", "headers", "delay", "abort", "share", "add", "status"]
            ),
            each,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_whatever_the_file_holds_it_is_rules_or_a_rules_error(value: Any) -> None:
    with contextlib.suppress(RulesError):
        parse(json.dumps(value), "x")
