"""The two lanes, by a file of rules or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.loom.test_memory import RULES


@pytest.fixture(params=["relay", "intercept"])
def rules(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    if request.param == "relay":
        return None
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(RULES))
    return path
