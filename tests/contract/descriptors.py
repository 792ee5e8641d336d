"""What protoc makes of .proto files, as descriptors."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
CONTRACT = "app/proto/template"
"""Under a root, the folder of all versions of the contract."""

WELL_KNOWN = Path(str(files("grpc_tools"))) / "_proto"
"""Where protoc finds google/protobuf/."""


class ProtocError(Exception):
    """protoc refuses the files; the message is its own."""


def contract(root: Path = ROOT) -> FileDescriptorSet:
    """The whole contract that lies under `root`."""
    return compiled(root, (path.relative_to(root) for path in sorted((root / CONTRACT).rglob("*.proto"))))


def compiled(root: Path, names: Iterable[Path]) -> FileDescriptorSet:
    """These files, comments included and what they import not; names are relative to `root`.

    Raises `ProtocError`.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as complaints:
        out = Path(folder, "set.binpb")
        arguments = [
            "protoc",
            *("-I", str(root), "-I", sysconfig.get_path("purelib"), "-I", str(WELL_KNOWN)),
            *("--include_source_info", f"--descriptor_set_out={out}"),
            *(str(root / name) for name in names),
        ]
        with _standard_error_to(complaints.fileno()):
            status = protoc.main(arguments)  # in this process: starting another takes much longer than its work
        if status:
            complaints.seek(0)
            raise ProtocError(complaints.read().decode().strip())
        return FileDescriptorSet.FromString(out.read_bytes())


@contextmanager
def _standard_error_to(descriptor: int) -> Iterator[None]:
    """The process' own, which is what protoc writes to."""
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
