"""Schemas from files that a person names: a descriptor set, or a folder of .proto files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from app.loom.schema.errors import SchemaError, SchemaFileError
from app.loom.schema.schema import Schema

COMPILE_TIMEOUT_S: Final = 60.0
MAX_BYTES: Final = 64 << 20


def from_descriptor_set(path: Path) -> Schema:
    """What `protoc --include_imports --descriptor_set_out` wrote. Raises `SchemaFileError`, naming the file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SchemaFileError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        schema = Schema.parse(path.read_bytes())
    except OSError as error:
        raise SchemaFileError(f"{path}: {error.strerror}") from error
    except SchemaError as error:
        raise SchemaFileError(f"{path}: {error}; protoc --include_imports --descriptor_set_out makes one") from error
    if not schema.services:
        raise SchemaFileError(f"{path}: has no service" + "".join(f"; {problem}" for problem in schema.problems[:3]))
    return schema


def from_proto_dir(folder: Path) -> Schema:
    """All .proto files below a folder, which imports are relative to. Raises `SchemaFileError`, as protoc puts it."""
    root = folder.resolve()
    files = sorted(str(path) for path in root.rglob("*.proto"))  # absolute, so that none is taken for a flag
    if not files:
        raise SchemaFileError(f"{folder}: " + ("has no .proto file" if root.is_dir() else "is no folder"))
    with tempfile.TemporaryDirectory(prefix="loom-") as scratch:
        made = Path(scratch, "set")
        flags = ["--include_imports", f"--descriptor_set_out={made}", "-I", str(root)]
        try:
            done = subprocess.run(  # noqa: S603 - no shell
                [sys.executable, "-m", "grpc_tools.protoc", *flags, *files],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=COMPILE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SchemaFileError(f"{folder}: protoc took longer than {COMPILE_TIMEOUT_S:g} s") from None
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise SchemaFileError(f"{folder}: {'; '.join(lines[:3]) or 'protoc failed'}")
        return from_descriptor_set(made)
