"""Each kind of break is found, and named; what breaks nobody is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.contract.breaks import breaks
from tests.contract.descriptors import ProtocError, compiled

TEAS = """
syntax = "proto3";
package tea.v1;
import "google/protobuf/duration.proto";
option java_package = "com.example.tea";

service Teas {
  rpc Brew(BrewRequest) returns (Cup) { option idempotency_level = IDEMPOTENT; }
  rpc Watch(BrewRequest) returns (stream Cup);
  rpc Pour(stream Cup) returns (Cup);
}
service Cakes {
  rpc Bake(Cup) returns (Cup);
}
// A wish.
message BrewRequest {
  reserved 4, 10 to 20;
  reserved "sugar";
  int64 id = 1;
  string name = 2;
  optional int32 minutes = 3;
  repeated string leaves = 5;
  map<string, int32> grams = 6;
  google.protobuf.Duration time = 7;
  oneof vessel {
    string pot = 8;
    string mug = 9;
  }
  message Milk {
    bool first = 1;
  }
  Milk milk = 21;
  Kind kind = 22;
}
message Cup {
  string of = 1;
}
enum Kind {
  reserved 7 to 9;
  reserved "KIND_BAG";
  KIND_UNSPECIFIED = 0;
  KIND_GREEN = 1;
  KIND_BLACK = 2;
}
enum Size {
  SIZE_UNSPECIFIED = 0;
}
"""

BROKEN = [
    ("package tea.v1;", "package tea.v2;", {"FILE_SAME_PACKAGE"}),
    ('syntax = "proto3";', 'syntax = "proto2";', None),
    ('java_package = "com.example.tea"', 'java_package = "com.example.chai"', {"FILE_SAME_JAVA_PACKAGE"}),
    ("option java", "option optimize_for = CODE_SIZE;\noption java", {"FILE_SAME_OPTIMIZE_FOR"}),
    ("service Cakes {\n  rpc Bake(Cup) returns (Cup);\n}", "", {"SERVICE_NO_DELETE"}),
    ("service Cakes", "service Biscuits", {"SERVICE_NO_DELETE"}),
    ("  rpc Pour(stream Cup) returns (Cup);\n", "", {"RPC_NO_DELETE"}),
    ("rpc Pour(", "rpc Spill(", {"RPC_NO_DELETE"}),
    ("rpc Bake(Cup)", "rpc Bake(BrewRequest)", {"RPC_SAME_REQUEST_TYPE"}),
    ("rpc Bake(Cup) returns (Cup)", "rpc Bake(Cup) returns (BrewRequest)", {"RPC_SAME_RESPONSE_TYPE"}),
    ("Watch(BrewRequest)", "Watch(stream BrewRequest)", {"RPC_SAME_CLIENT_STREAMING"}),
    ("Pour(stream Cup)", "Pour(Cup)", {"RPC_SAME_CLIENT_STREAMING"}),
    ("returns (stream Cup)", "returns (Cup)", {"RPC_SAME_SERVER_STREAMING"}),
    ("Bake(Cup) returns (Cup)", "Bake(Cup) returns (stream Cup)", {"RPC_SAME_SERVER_STREAMING"}),
    ("= IDEMPOTENT", "= NO_SIDE_EFFECTS", {"RPC_SAME_IDEMPOTENCY_LEVEL"}),
    ("{ option idempotency_level = IDEMPOTENT; }", "{}", {"RPC_SAME_IDEMPOTENCY_LEVEL"}),
    ("  message Milk {\n    bool first = 1;\n  }\n  Milk milk = 21;\n", "", {"MESSAGE_NO_DELETE", "FIELD_NO_DELETE"}),
    ("Milk", "Cream", {"MESSAGE_NO_DELETE", "FIELD_SAME_TYPE"}),
    ("  string name = 2;\n", "", {"FIELD_NO_DELETE"}),
    ("  string name = 2;\n", '  reserved 2; reserved "name";\n', {"FIELD_NO_DELETE"}),
    ("    bool first = 1;\n", "", {"FIELD_NO_DELETE"}),
    ("string name = 2", "string name = 23", {"FIELD_SAME_NUMBER"}),
    ("string name = 2", "string title = 2", {"FIELD_SAME_NAME"}),
    ("int64 id = 1;\n  string name = 2;", "int64 id = 2;\n  string name = 1;", {"FIELD_SAME_NAME", "FIELD_SAME_TYPE"}),
    ("int64 id = 1", 'int64 id = 1 [json_name = "number"]', {"FIELD_SAME_JSON_NAME"}),
    ("int64 id = 1", "int64 id = 1 [jstype = JS_STRING]", {"FIELD_SAME_JSTYPE"}),
    ("int64 id = 1", "int32 id = 1", {"FIELD_SAME_TYPE"}),
    ("int64 id = 1", "uint64 id = 1", {"FIELD_SAME_TYPE"}),
    ("string name = 2", "bytes name = 2", {"FIELD_SAME_TYPE"}),
    ("Kind kind = 22", "Size kind = 22", {"FIELD_SAME_TYPE"}),
    ("Kind kind = 22", "int32 kind = 22", {"FIELD_SAME_TYPE"}),
    ("google.protobuf.Duration time", "Cup time", {"FIELD_SAME_TYPE"}),
    ("map<string, int32> grams", "map<string, int64> grams", {"FIELD_SAME_TYPE"}),
    ("string name = 2", "repeated string name = 2", {"FIELD_SAME_CARDINALITY"}),
    ("repeated string leaves", "string leaves", {"FIELD_SAME_CARDINALITY"}),
    ("optional int32 minutes", "int32 minutes", {"FIELD_SAME_CARDINALITY"}),
    ("int64 id = 1", "optional int64 id = 1", {"FIELD_SAME_CARDINALITY"}),
    ("map<string, int32> grams", "repeated string grams", {"FIELD_SAME_CARDINALITY", "FIELD_SAME_TYPE"}),
    ("string name = 2;", "oneof who { string name = 2; }", {"FIELD_SAME_ONEOF"}),
    ("    string mug = 9;\n  }", "  }\n  string mug = 9;", {"FIELD_SAME_ONEOF"}),
    ("oneof vessel", "oneof pottery", {"FIELD_SAME_ONEOF", "ONEOF_NO_DELETE"}),
    ("reserved 4, 10 to 20", "reserved 10 to 20", {"RESERVED_MESSAGE_NO_DELETE"}),
    ("reserved 4, 10 to 20", "reserved 4, 11 to 20", {"RESERVED_MESSAGE_NO_DELETE"}),
    ("reserved 4, 10 to 20", "reserved 4, 10 to 19", {"RESERVED_MESSAGE_NO_DELETE"}),
    ("reserved 4, 10 to 20", "reserved 4, 10 to 14, 16 to 20", {"RESERVED_MESSAGE_NO_DELETE"}),
    ('  reserved "sugar";\n', "", {"RESERVED_MESSAGE_NO_DELETE"}),
    ("enum Size {\n  SIZE_UNSPECIFIED = 0;\n}", "", {"ENUM_NO_DELETE"}),
    ("  KIND_BLACK = 2;\n", "", {"ENUM_VALUE_NO_DELETE"}),
    ("KIND_BLACK = 2", "KIND_BLACK = 3", {"ENUM_VALUE_NO_DELETE"}),
    ("KIND_BLACK = 2", "KIND_OOLONG = 2", {"ENUM_VALUE_SAME_NAME"}),
    ("reserved 7 to 9", "reserved 8 to 9", {"RESERVED_ENUM_NO_DELETE"}),
    ("reserved 7 to 9", "reserved 7 to 8", {"RESERVED_ENUM_NO_DELETE"}),
    ('  reserved "KIND_BAG";\n', "", {"RESERVED_ENUM_NO_DELETE"}),
]

HARMLESS = [
    ("// A wish.\n", "// Another word for it.\n"),
    ("string of = 1;", "string of = 1 [deprecated = true];"),
    ("string of = 1;", "string of = 1;\n  string more = 2;\n  optional bool warm = 3;"),
    ("int64 id = 1;\n  string name = 2;", "string name = 2;\n  int64 id = 1;"),
    ("KIND_BLACK = 2;", "KIND_BLACK = 2;\n  KIND_OOLONG = 3;"),
    ("rpc Bake(Cup) returns (Cup);", "rpc Bake(Cup) returns (Cup);\n  rpc Ice(Cup) returns (Cup);"),
    ("service Cakes", "service Pies {\n  rpc Bake(Cup) returns (Cup);\n}\nservice Cakes"),
    ("message Cup {", "message Spoon {}\nmessage Cup {"),
    ("reserved 4, 10 to 20", "reserved 4 to 4, 10 to 15, 16 to 20, 30 to 40"),
    ("    string mug = 9;", "    string mug = 9;\n    string flask = 23;"),
    ("message Cup {", 'import "google/protobuf/empty.proto";\nmessage Cup {'),
    ("repeated string leaves = 5", "repeated string leaves = 5;\n  repeated int32 sizes = 24 [packed = false]"),
]  # fmt: skip


@pytest.fixture(scope="module")
def teas(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    return made(tmp_path_factory.mktemp("released"), TEAS)


def made(folder: Path, text: str) -> FileDescriptorSet:
    (folder / "teas.proto").write_text(text)
    return compiled(folder, [Path("teas.proto")])


@pytest.mark.parametrize(
    ("old", "new", "rules"),
    [pytest.param(*case, id=f"{' '.join(case[0].split())}-->{' '.join(case[1].split())}") for case in BROKEN],
)
def test_a_break_is_found_under_its_rule(
    teas: FileDescriptorSet, tmp_path: Path, old: str, new: str, rules: set[str] | None
) -> None:
    changed = TEAS.replace(old, new)
    assert changed != TEAS
    if rules is None:  # to proto2: what has no label is no field there
        changed = TEAS.replace(old, new).replace("optional ", "")
        for field in ("int64 id", "string name", "int32 minutes", "google.protobuf.Duration time", "Milk milk",
                      "Kind kind", "string of", "bool first"):  # fmt: skip
            changed = changed.replace(f"  {field} ", f"  optional {field} ")
        rules = {"FILE_SAME_SYNTAX", "FIELD_SAME_CARDINALITY"}
    found = breaks(teas, made(tmp_path, changed))
    assert {each.rule for each in found} == rules, found


@pytest.mark.parametrize(("old", "new"), HARMLESS)
def test_what_breaks_nobody_is_let_by(teas: FileDescriptorSet, tmp_path: Path, old: str, new: str) -> None:
    changed = TEAS.replace(old, new)
    assert changed != TEAS
    assert breaks(teas, made(tmp_path, changed)) == []


def test_a_file_that_is_gone_or_renamed_is_a_break(teas: FileDescriptorSet) -> None:
    renamed = FileDescriptorSet.FromString(teas.SerializeToString())
    renamed.file[0].name = "tea.proto"
    for now in (FileDescriptorSet(), renamed):
        assert [str(each) for each in breaks(teas, now)] == ["teas.proto: is gone (FILE_NO_DELETE)"]


def test_a_break_says_where_it_is_and_what_was_there(teas: FileDescriptorSet, tmp_path: Path) -> None:
    found = breaks(teas, made(tmp_path, TEAS.replace("bool first = 1", "string first = 1")))
    assert [str(each) for each in found] == [
        "tea.v1.BrewRequest.Milk.first: was bool, is string (FIELD_SAME_TYPE)",
    ]


def test_files_that_protoc_refuses_are_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ProtocError, match=r'teas\.proto:.*"Cip" is not defined'):
        made(tmp_path, TEAS.replace("returns (stream Cup)", "returns (stream Cip)"))
    shutil.rmtree(tmp_path)
