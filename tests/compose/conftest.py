"""A `docker` that answers as it is told, and notes what it was asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

_PROGRAM = """#!{python} -IS
import json, pathlib, sys, time
here = pathlib.Path({here!r})
words = sys.argv[1:]
given = sys.stdin.read() if "-" in words else ""
with (here / "asked").open("a") as asked:
    asked.write(json.dumps([words, given]) + "\\n")
for each in json.loads((here / "answers").read_text()):
    if all(word in words for word in each["to"]):
        if each["waits"]:
            time.sleep(each["waits"])
        print(each["output"])
        print(each["errors"], file=sys.stderr)
        sys.exit(each["status"])
"""


class Asked(NamedTuple):
    """One call of docker: its words, and what it was given to read."""

    words: list[str]
    given: str


class FakeDocker:
    """Silent success, unless `answer` said otherwise; of several that fit, the latest counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._answers: list[dict[str, object]] = []
        program = folder / "docker"
        program.write_text(_PROGRAM.format(python=sys.executable, here=str(folder)))
        program.chmod(0o755)
        self.answer(["compose", "version"], "2.40.3")

    def answer(
        self, to: Sequence[str], output: str = "", *, errors: str = "", status: int = 0, waits: float = 0.0
    ) -> None:
        """What is said, after `waits` seconds, to a command that has all these words."""
        entry = {"to": list(to), "output": output, "errors": errors, "status": status, "waits": waits}
        self._answers.insert(0, entry)
        (self.folder / "answers").write_text(json.dumps(self._answers))

    def asked(self, *words: str) -> list[Asked]:
        """The calls so far that had all these words."""
        file = self.folder / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [Asked(*json.loads(line)) for line in lines]
        return [call for call in calls if all(word in call.words for word in words)]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """The only program on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return FakeDocker(folder)
