"""The contract as it was released, version by version."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.contract.breaks import Break, breaks
from tests.contract.descriptors import CONTRACT, ROOT, contract

RELEASED = Path(__file__).parent / "released"


def versions(released: Path = RELEASED) -> list[str]:
    """The versions, the newest last."""
    return sorted((path.name for path in released.iterdir() if path.is_dir()), key=ordered)


def ordered(version: str) -> tuple[int, ...]:
    """By which versions are sorted: 0.10.0 comes after 0.9.0. Raises `ValueError` where it is none."""
    return tuple(int(part) for part in version.split("."))


def broken(root: Path = ROOT, released: Path = RELEASED) -> list[Break]:
    """What the contract under `root` breaks of the one that was released last."""
    return breaks(contract(released / versions(released)[-1]), contract(root))


def release(version: str, root: Path = ROOT, released: Path = RELEASED) -> None:
    """Keep the contract under `root` as that of `version`.

    Raises `ValueError` where the version is not above all that there are, or the contract breaks the last of them.
    """
    newest = versions(released)[-1]
    if ordered(version) <= ordered(newest):
        raise ValueError(f"{version} is not above {newest}, which was released last")
    if found := broken(root, released):
        raise ValueError("; ".join(map(str, found)))
    shutil.copytree(
        root / CONTRACT, released / version / CONTRACT, ignore=shutil.ignore_patterns("*.py", "*.pyi", "__*")
    )
