from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

import pytest

from app.cli import ndjson
from app.cli.failure import CommandError
from app.cli.ndjson import MAX_LINE_BYTES, checked, opened, templates

GOOD = b'{"name": "a", "body": "b"}\n'


def read(content: bytes) -> list[tuple[str, str]]:
    source = io.BytesIO(content)
    checked(source, "f")
    return list(templates(source, "f"))


def test_each_line_is_a_template_blank_ones_aside_and_the_last_needs_no_end() -> None:
    content = GOOD + b"\n  \r\n" + '{"body": "", "name": "é 😀"}'.encode()
    assert read(content) == [("a", "b"), ("é 😀", "")]
    assert read(b"") == []


def test_the_longest_template_fits_with_every_character_escaped() -> None:
    line = json.dumps({"name": "😀" * 200, "body": "😀" * 65_536}).encode()
    assert len(line) < MAX_LINE_BYTES
    assert read(line) == [("😀" * 200, "😀" * 65_536)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"name,body", "is not JSON: Expecting value, at character 1;"),
        (b'{"name": "a", "body": "b"', "is not JSON: "),
        (b'{"name": "a", "body": "b"} {}', "is not JSON: "),
        (b'\xef\xbb\xbf{"name": "a", "body": "b"}', "is not JSON: .*BOM"),
        (b"[" * 100_000, "is not JSON: "),
        (b'{"name": "\xff", "body": "b"}', "is not UTF-8 at byte 11"),
        (b'["a", "b"]', "must be an object such as"),
        (b"{}", "has no body and no name"),
        (b'{"name": "a"}', "has no body"),
        (b'{"name": "a", "body": "b", "id": 7}', 'has "id", which is neither name nor body'),
        (b'{"name": 7, "body": "b"}', "name must be a text"),
        (b'{"name": "a", "body": null}', "body must be a text"),
        (b'{"name": " ", "body": "b"}', "name: must not be blank"),
        (b'{"name": "%b", "body": "b"}' % (b"x" * 201), "name: must have at most 200 characters, has 201"),
        (b'{"name": "a", "body": "\\u0000"}', r"body: must not contain the character U\+0000"),
        (b'{"name": "a", "body": "\\ud800"}', "body: must not contain a lone surrogate"),
        (b'{"name": "a", "body": "%b"}' % (b"x" * MAX_LINE_BYTES), "is longer than 1,048,576 bytes"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_and_what_is_wrong_with_it(line: bytes, words: str) -> None:
    with pytest.raises(CommandError, match=f"^f, line 4: {words}") as caught:
        read(GOOD + b"\n" + GOOD + line + b"\n" + GOOD)
    assert caught.value.status == 2
    assert str(caught.value).endswith("nothing was imported")
    assert "\n" not in str(caught.value)


def test_what_can_be_read_only_once_is_read_twice_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "MEMORY_BYTES", 64 << 10)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = (256 << 10) // len(GOOD)  # more than is kept in memory
    writer = threading.Thread(target=lambda: pipe.write_bytes(GOOD * lines))
    writer.start()
    with opened(str(pipe)) as source:
        checked(source, "pipe")
        assert sum(1 for _ in templates(source, "pipe")) == lines
    writer.join()


@pytest.mark.parametrize(("name", "why"), [("missing", "No such file"), ("folder", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CommandError, match=f"cannot read .*{name}: {why}") as caught, opened(str(tmp_path / name)):
        pass
    assert caught.value.status == 2
