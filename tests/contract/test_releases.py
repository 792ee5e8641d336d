"""What was released stays as it was, and the contract of now breaks nothing of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app import __version__
from tests.contract.descriptors import CONTRACT, ROOT, contract
from tests.contract.releases import RELEASED, broken, ordered, release, versions

PROTO = f"{CONTRACT}/v1/template.proto"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the contract, which may be changed."""
    folder = tmp_path / "root" / CONTRACT / "v1"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / PROTO, folder)
    return tmp_path / "root"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A copy of the releases."""
    return Path(shutil.copytree(RELEASED, tmp_path / "released"))


def test_the_contract_breaks_nothing_of_the_one_released_last() -> None:
    assert broken() == [], "see CONTRIBUTING.md: a break needs a package of its own"


def test_what_was_released_is_complete_and_not_above_the_version_of_now() -> None:
    assert ordered(versions()[-1]) <= ordered(__version__)
    first = contract(RELEASED / "0.1.0")
    (service,) = first.file[0].service
    assert [method.name for method in service.method] == [
        "GetTemplateDetails",
        "CreateTemplate",
        "UpdateTemplate",
        "DeleteTemplate",
        "WatchTemplates",
        "ImportTemplates",
        "SyncTemplates",
    ]


def test_a_break_of_the_contract_itself_is_found(root: Path) -> None:
    proto = root / PROTO
    proto.write_text(proto.read_text().replace("Source source = 2", "Source source = 4"))
    assert [str(each) for each in broken(root)] == [
        "template.v1.GetTemplateDetailsResponse.source: had number 2, has 4 (FIELD_SAME_NUMBER)"
    ]


def test_a_release_keeps_the_contract_and_is_what_the_next_is_held_to(root: Path, released: Path) -> None:
    proto = root / PROTO
    proto.write_text(proto.read_text().replace("Source source = 2;", "Source source = 2;\n  string note = 4;"))
    release("0.10.0", root, released)
    assert versions(released) == ["0.1.0", "0.10.0"]
    assert broken(root, released) == []
    assert [each.rule for each in broken(ROOT, released)] == ["FIELD_NO_DELETE"]


def test_a_release_that_breaks_the_last_one_or_is_not_above_it_is_refused(root: Path, released: Path) -> None:
    for version in ("0.1.0", "0.0.9"):
        with pytest.raises(ValueError, match=rf"{version} is not above 0\.1\.0"):
            release(version, root, released)
    proto = root / PROTO
    proto.write_text(proto.read_text().replace("rpc DeleteTemplate(", "rpc RemoveTemplate("))
    with pytest.raises(ValueError, match="DeleteTemplate: is gone"):
        release("0.2.0", root, released)
    assert versions(released) == ["0.1.0"]
