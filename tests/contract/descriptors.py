"""What protoc makes of .proto files, as descriptors."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).parents[2]
CONTRACT = "app/proto/template"
"""Under a root, the folder of all versions of the contract."""


class ProtocError(Exception):
    """protoc refuses the files; the message is its own."""


def contract(root: Path = ROOT) -> FileDescriptorSet:
    """The whole contract that lies under `root`."""
    return compiled(root, (path.relative_to(root) for path in sorted((root / CONTRACT).rglob("*.proto"))))


def compiled(root: Path, files: Iterable[Path]) -> FileDescriptorSet:
    """These files, comments included and what they import not; names are relative to `root`.

    Raises `ProtocError`.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "set.binpb")
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            *("-I", str(root), "-I", sysconfig.get_path("purelib")),
            *("--include_source_info", f"--descriptor_set_out={out}"),
            *map(str, files),
        ]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise ProtocError(done.stderr.strip())
        return FileDescriptorSet.FromString(out.read_bytes())
