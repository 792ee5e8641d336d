"""A schema of every kind of field, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.loom.schema.files import from_proto_dir
from app.loom.schema.schema import Schema

PROTOS = Path(__file__).parent / "protos"


@pytest.fixture(scope="session")
def shop() -> Schema:
    return from_proto_dir(PROTOS)
