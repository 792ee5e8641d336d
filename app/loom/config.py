"""loom.toml: what the flags say, in a file.

    listen = "127.0.0.1:9999"
    redact = ["x-api-key"]
    [backend-tls]
    ca = "ca.pem"                # as backend-tls-ca = "ca.pem"

Keys are the flags' names, with - or _ between the words. A table's name is the beginning of its keys' names.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = "loom.toml"
MAX_FILE_BYTES: Final = 1 << 20


class ConfigError(Exception):
    """A file that cannot be used. The text is one line: the file, the key, and what would be right; never a value,
    which may be a secret."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a key takes."""

    kind: type[bool] | type[int] | type[float] | type[str]
    is_list: bool = False

    @property
    def wanted(self) -> str:
        one = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[self.kind]
        return f"a list, each of it {one}" if self.is_list else one

    def takes(self, value: object) -> bool:
        """Whether a value of TOML is of its type; whole numbers will do for numbers."""
        if self.is_list:
            return isinstance(value, list) and all(self._takes_one(each) for each in value)
        return self._takes_one(value)

    def _takes_one(self, value: object) -> bool:
        if isinstance(value, bool):
            return self.kind is bool
        return isinstance(value, (int, float) if self.kind is float else self.kind)


def read(path: Path, keys: Mapping[str, Key]) -> dict[str, Any]:
    """What the file says, by key, `-` between the words. Raises `ConfigError`."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    found: dict[str, Any] = {}
    for name, value in _flat(document, keys):
        key = keys.get(name)
        if key is None:
            raise ConfigError(f"{path}: no key {name[:100]!r}; {nearest(name, keys)}")
        if name in found:
            raise ConfigError(f"{path}: {name} is given twice")
        if not key.takes(value):
            raise ConfigError(f"{path}: {name} wants {key.wanted}")
        found[name] = value
    return found


def nearest(name: str, known: Mapping[str, object]) -> str:
    """Which name was meant, in words."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"


def _flat(table: Mapping[str, Any], keys: Mapping[str, Key], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for word, value in table.items():
        name = prefix + word.replace("_", "-")
        if isinstance(value, dict) and any(known.startswith(f"{name}-") for known in keys):
            yield from _flat(value, keys, f"{name}-")
        else:
            yield name, value
