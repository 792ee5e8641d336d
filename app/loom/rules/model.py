"""Rules: for which calls, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from app.loom.call import Direction, Status

Path = tuple[str, ...]
"""Names of fields, as in the .proto file or as in JSON; keys of maps; places in lists."""


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """To metadata: first `delete`, then `set`, then `add`."""

    set: Mapping[str, str] = field(default_factory=dict)
    """Takes the place of all values of that name."""
    add: tuple[tuple[str, str], ...] = ()
    delete: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Abort:
    """The call is answered by the proxy; the backend does not see it."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the rules file."""

    number: int
    """From 1, its place in the file."""
    method: str
    """A path without the leading slash, or a glob over such paths."""
    direction: Direction | None = None
    """`None` for both."""
    set: tuple[tuple[Path, Any], ...] = ()
    """What JSON gives for a field is put there."""
    delete: tuple[Path, ...] = ()
    headers: HeaderEdits = HeaderEdits()
    delay_s: float = 0.0
    """Before the call goes on."""
    abort: Abort | None = None
    share: float = 1.0
    """Of the calls that it is for, chosen at random for each call."""

    def is_for(self, method: str) -> bool:
        """By the call's path, `/package.Service/Method`."""
        return fnmatchcase(method.removeprefix("/"), self.method)

    def document(self) -> dict[str, Any]:
        """What JSON takes: as the file has it, and without what it leaves out."""
        headers = {
            "set": dict(self.headers.set),
            "add": [list(pair) for pair in self.headers.add],
            "delete": sorted(self.headers.delete),
        }
        found = {
            "set": {".".join(path): value for path, value in self.set},
            "delete": [".".join(path) for path in self.delete],
            "headers": {name: edits for name, edits in headers.items() if edits},
            "delay": round(self.delay_s * 1e3, 3),
            "abort": self.abort and {"status": self.abort.status.name, "message": self.abort.message},
        }
        head = {
            "number": self.number,
            "method": self.method,
            "direction": "both" if self.direction is None else self.direction.value,
            "share": self.share,
        }
        return head | {name: value for name, value in found.items() if value}

    @property
    def edits_messages(self) -> bool:
        return bool(self.set or self.delete)
