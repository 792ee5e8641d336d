"""The generated code that is committed must be what `make proto` makes of the .proto files."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor

from app.proto.template.v1 import template_pb2

ROOT = Path(__file__).parents[3]
PROTO = Path("app/proto/template/v1/template.proto")


def test_generated_code_is_what_protoc_makes_now(tmp_path: Path) -> None:
    flags = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    paths = ["-I", ".", "-I", sysconfig.get_path("purelib")]
    command = [sys.executable, "-m", "grpc_tools.protoc", *paths, *flags, str(PROTO)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert [path.name for path in made] == ["template_pb2.py", "template_pb2.pyi", "template_pb2_grpc.py"]
    for path in made:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path} has drifted: run `make proto`"


def test_every_proto_file_is_generated_and_its_package_is_its_folder() -> None:
    assert [path.relative_to(ROOT) for path in sorted((ROOT / "app/proto").rglob("*.proto"))] == [PROTO]
    assert _package_folder(template_pb2.DESCRIPTOR) == PROTO.parent


def _package_folder(file: FileDescriptor) -> Path:
    return Path("app/proto", *file.package.split("."))
