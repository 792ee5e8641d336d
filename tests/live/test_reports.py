from __future__ import annotations

from pathlib import Path

import pytest

from app.live import reports as reports_module
from app.live.reports import MAX_REPORTS, Reports


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "scenario-secret.html").write_text("outside")
    (folder / "scenario-redis-outage.html").write_text("<html><title>Redis &amp; away</title>")
    (folder / "demo.html").write_text("no title")
    (folder / "lab-xfetch.html").write_text("<title>XFetch</title>")
    for name in ("demo.json", "other.html", "scenario-.html", "scenario-UP.html", "demo.html.html", "lab.htm"):
        (folder / name).write_text("not for everybody")
    (folder / "scenario-link.html").symlink_to(tmp_path / "scenario-secret.html")
    (folder / "lab.html").mkdir()
    return folder


def test_only_reports_are_listed_by_their_titles(folder: Path) -> None:
    assert {(each["name"], each["title"], each["url"]) for each in Reports(folder).listed()} == {
        ("scenario-redis-outage", "Redis & away", "/reports/scenario-redis-outage.html"),
        ("demo", "demo", "/reports/demo.html"),
        ("lab-xfetch", "XFetch", "/reports/lab-xfetch.html"),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("other", "scenario-", "scenario-UP", "demo.html", "demo\n", "scenario-link", "lab", "", "scenario-nope"),
        *("../scenario-secret", "scenario-/../demo", "scenario-..", "/etc/passwd", "demo\0", "scenario-" + "a" * 65),
    ],
)
def test_nothing_else_is_read_whatever_the_name(folder: Path, name: str) -> None:
    assert Reports(folder).read(name) is None


def test_a_report_is_read_as_it_is(folder: Path) -> None:
    assert Reports(folder).read("demo") == b"no title"


def test_one_that_is_too_large_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports_module, "MAX_BYTES", 4)
    assert Reports(folder).read("demo") is None


def test_the_newest_are_listed_and_no_more_than_so_many(folder: Path) -> None:
    for number in range(2 * MAX_REPORTS):
        (folder / f"scenario-{number}.html").touch()
    assert len(Reports(folder).listed()) == MAX_REPORTS


@pytest.mark.parametrize("folder_", [None, Path("/nowhere/at/all")])
def test_without_a_folder_there_are_none(folder_: Path | None) -> None:
    assert Reports(folder_).listed() == []
    assert Reports(folder_).read("demo") is None
