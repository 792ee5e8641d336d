"""Each bound in `docs/staleness.md` names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("test_staleness.py", "test_model.py")


def test_every_test_that_the_bounds_name_exists() -> None:
    text = (ROOT / "docs" / "staleness.md").read_text(encoding="utf-8")
    source = "".join((ROOT / "tests" / "cache" / name).read_text(encoding="utf-8") for name in SOURCES)
    named = set(re.findall(r"`(test_\w+)`", text)) | set(re.findall(r"model: `(\w+)`", text))
    assert len(named) > 15
    assert {name for name in named if f"def {name}(" not in source} == set()


def test_every_interleaving_that_is_tested_stands_in_the_tables() -> None:
    text = (ROOT / "docs" / "staleness.md").read_text(encoding="utf-8")
    source = (ROOT / "tests" / "cache" / "test_staleness.py").read_text(encoding="utf-8")
    assert {name for name in re.findall(r"def (test_\w+)\(", source) if f"`{name}`" not in text} == set()
