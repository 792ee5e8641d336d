"""Sets of descriptors, from the wire and from files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from app.loom.schema.errors import SchemaError, SchemaFileError
from app.loom.schema.files import from_descriptor_set, from_proto_dir
from app.loom.schema.schema import Schema


def test_methods_have_their_types_and_stream_kinds(shop: Schema) -> None:
    assert shop.services == ["shop.Shop"]
    kinds = {method.path: (method.client_streams, method.server_streams) for method in shop.methods()}
    assert kinds == {
        "/shop.Shop/Get": (False, False),
        "/shop.Shop/Watch": (False, True),
        "/shop.Shop/Import": (True, False),
        "/shop.Shop/Sync": (True, True),
    }
    method = shop.method("/shop.Shop/Get")
    assert method is not None
    assert (method.input.full_name, method.output.full_name) == ("shop.Order", "shop.Order")
    for strange in ("/shop.Shop/No", "/shop.No/Get", "/", "", "//", "/shop.Shop", "/shop.Shop/Get/More"):
        assert shop.method(strange) is None


def test_the_hash_is_the_sets_whatever_the_order(shop: Schema) -> None:
    files = list(FileDescriptorSet.FromString(shop.serialize()).file)
    random.Random(1).shuffle(files)
    assert Schema(files).hash == shop.hash == Schema.parse(shop.serialize()).hash
    files[0].message_type.add(name="More")
    assert Schema(files).hash != shop.hash


def test_well_known_imports_that_a_backend_leaves_out_are_added(shop: Schema) -> None:
    own = [file for file in FileDescriptorSet.FromString(shop.serialize()).file if file.package == "shop"]
    schema = Schema(own)
    assert schema.problems == []
    assert len(schema.methods()) == 4


def test_a_file_without_its_imports_is_left_out_and_the_rest_is_used() -> None:
    good = FileDescriptorProto(name="good.proto", package="good", syntax="proto3")
    good.message_type.add(name="Fine")
    bad = FileDescriptorProto(name="bad.proto", package="bad", syntax="proto3", dependency=["gone.proto"])
    circle = [FileDescriptorProto(name=f"{n}.proto", dependency=[f"{1 - n}.proto"]) for n in range(2)]
    schema = Schema([bad, good, *circle])
    assert schema.type_named("good.Fine") is not None
    assert sorted(problem.partition(":")[0] for problem in schema.problems) == ["0.proto", "1.proto", "bad.proto"]


def test_two_schemas_may_know_different_types_by_one_name() -> None:
    schemas = []
    for field in ("old", "new"):
        file = FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
        file.message_type.add(name="M").field.add(name=field, number=1, type=9, label=1)
        schemas.append(Schema([file]))
    shown = [found.fields[0].name for s in schemas if (found := s.type_named("a.M")) is not None]
    assert shown == ["old", "new"]


def test_bytes_that_are_no_set_are_refused() -> None:
    with pytest.raises(SchemaError, match="not a FileDescriptorSet"):
        Schema.parse(b"\xff\xff\xff")


def test_files_are_read_or_refused_by_name(tmp_path: Path, shop: Schema) -> None:
    path = tmp_path / "set.binpb"
    path.write_bytes(shop.serialize())
    assert from_descriptor_set(path).hash == shop.hash
    path.write_bytes(b"no set")
    for given, says in [
        (path, "not a FileDescriptorSet"),
        (tmp_path / "gone", "No such file"),
        (tmp_path, "directory"),
    ]:
        with pytest.raises(SchemaFileError, match=says) as refused:
            from_descriptor_set(given)
        assert str(given) in str(refused.value)
    path.write_bytes(b"")
    with pytest.raises(SchemaFileError, match="no service"):
        from_descriptor_set(path)


def test_a_folder_of_protos_is_compiled_or_refused_with_protocs_words(tmp_path: Path) -> None:
    with pytest.raises(SchemaFileError, match=r"has no \.proto file"):
        from_proto_dir(tmp_path)
    with pytest.raises(SchemaFileError, match="is no folder"):
        from_proto_dir(tmp_path / "gone")
    (tmp_path / "--plugin=x.proto").write_text('syntax = "proto3"; message A { Nope b = 1; }')
    with pytest.raises(SchemaFileError, match=r"1:\d+.*Nope"):
        from_proto_dir(tmp_path)
