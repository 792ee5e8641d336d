from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.embedded import directory
from app.embedded.account import Account
from app.embedded.directory import PREFIX, STALE_AFTER_S, LogDirectory, ServerDirectory
from app.embedded.errors import EmbeddedError


@pytest.fixture(autouse=True)
def base(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(open_directory))
    return open_directory


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def abandoned(base: Path, seconds: float) -> Path:
    left = base / f"{PREFIX}postgres-abandoned"
    (left / "data").mkdir(parents=True)
    (left / "data" / "file").touch()
    age(left, seconds)
    return left


def test_close_removes_its_own_and_keeps_a_given_one(base: Path) -> None:
    own = ServerDirectory("postgres", None, None)
    (own.data / "file").touch()
    own.close()
    given = ServerDirectory("postgres", base / "deep" / "given", None)
    given.close()
    assert [path.name for path in base.iterdir()] == ["deep"]
    assert given.data.is_dir()


def test_what_a_dead_owner_left_is_swept(base: Path) -> None:
    left = abandoned(base, STALE_AFTER_S + 1)
    own = ServerDirectory("postgres", None, None)
    assert not left.exists()
    own.close()


def test_what_was_made_a_moment_ago_is_not_swept(base: Path) -> None:
    left = abandoned(base, STALE_AFTER_S - 10)
    ServerDirectory("postgres", None, None).close()
    assert left.exists()


def test_logs_are_not_swept_while_their_owner_lives_and_go_with_it(base: Path) -> None:
    with LogDirectory("logs") as logs:
        (logs / "app.log").touch()
        age(logs, 10 * STALE_AFTER_S)
        ServerDirectory("postgres", None, None).close()
        assert (logs / "app.log").exists()
    assert not logs.exists()


def test_what_is_in_use_is_not_swept_however_old(base: Path) -> None:
    first = ServerDirectory("postgres", None, None)
    age(first.path, 10 * STALE_AFTER_S)
    ServerDirectory("postgres", None, None).close()
    assert first.data.is_dir()
    first.close()


def test_a_link_under_our_prefix_is_not_followed(base: Path) -> None:
    elsewhere = base / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    age(elsewhere, 10 * STALE_AFTER_S)
    (base / f"{PREFIX}postgres-link").symlink_to(elsewhere)
    ServerDirectory("postgres", None, None).close()
    assert (elsewhere / "precious").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_another_user_left_is_not_swept(base: Path) -> None:
    left = abandoned(base, 10 * STALE_AFTER_S)
    os.chown(left, 12345, 12345)
    age(left, 10 * STALE_AFTER_S)
    ServerDirectory("postgres", None, None).close()
    assert left.exists()


def test_a_directory_that_is_in_use_is_refused(base: Path) -> None:
    first = ServerDirectory("postgres", base / "given", None)
    with pytest.raises(EmbeddedError, match="in use by another postgres"):
        ServerDirectory("postgres", base / "given", None)
    first.close()
    ServerDirectory("postgres", base / "given", None).close()


def test_a_directory_that_cannot_be_made_is_named(base: Path) -> None:
    (base / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cannot make a directory for postgres: .*file"):
        ServerDirectory("postgres", base / "file" / "given", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account for its servers")
def test_a_temp_directory_closed_to_the_servers_account_is_passed_over(base: Path) -> None:
    base.chmod(0o700)
    own = ServerDirectory("postgres", None, Account(65534, 65534))
    assert own.path.parent == Path("/tmp")
    assert own.data.stat().st_uid == 65534
    own.close()
    assert not own.path.exists()


def test_only_the_last_lines_of_the_log_since_a_point_are_quoted(base: Path) -> None:
    own = ServerDirectory("postgres", None, None)
    assert own.last_log_lines() == ""
    own.log.write_text("old\n" * 3 + "1\n2\n3\n")
    assert own.last_log_lines(start=12) == "1\n2\n3"
    assert own.last_log_lines(start=12, count=2) == "2\n3"
    own.close()


def test_a_directory_that_is_still_written_to_is_tried_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = base / "left"
    left.mkdir()
    removals = iter([False, False, True])

    def rmtree(path: Path, ignore_errors: bool) -> None:
        if next(removals):
            path.rmdir()

    pauses: list[float] = []
    monkeypatch.setattr("shutil.rmtree", rmtree)
    monkeypatch.setattr("time.sleep", pauses.append)
    directory.remove(left)
    monkeypatch.undo()
    assert not left.exists()
    assert len(pauses) == 2


def test_a_directory_that_cannot_be_removed_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = base / "left"
    left.mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
    with pytest.raises(EmbeddedError, match="left could not be removed"):
        directory.remove(left)
    monkeypatch.undo()
