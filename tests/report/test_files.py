from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from app.report.files import ReportError, check_folder, write_json, write_text


def test_a_file_is_put_in_place_with_its_folders_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "run.json"
    write_json(file, {"p50_ms": None, "mode": "none"})
    assert file.read_text() == '{\n  "p50_ms": null,\n  "mode": "none"\n}\n'
    assert [entry.name for entry in file.parent.iterdir()] == ["run.json"]


def test_a_file_that_is_there_is_replaced_whole_never_written_into(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text("old")
    with file.open() as reader:
        write_text(file, "new")
        assert reader.read() == "old"
    assert file.read_text() == "new"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.json"
    file.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ReportError, match=r"cannot write .*run\.json: No space left on device"):
        write_text(file, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]
    assert file.read_text() == "old"


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="Is a directory"):
        write_text(tmp_path, "x")


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join(10)
    assert got == ["through"]
    assert pipe.is_fifo()


def test_a_folder_is_made_and_left_empty_and_one_that_cannot_be_is_told(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match=r"^cannot write into .*/file: File exists$"):
        check_folder(tmp_path / "file")
