"""Metadata that is a secret, and must not be kept or shown anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.loom.call import Headers

ALWAYS: Final = frozenset({b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"})
PLACEHOLDER: Final = b"[redacted]"


class Redaction:
    """Replaces the values of some names, whatever their case."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` are redacted besides those that always are."""
        self._names = ALWAYS | {name.strip().lower().encode("ascii", "replace") for name in names}

    @property
    def names(self) -> frozenset[bytes]:
        return self._names

    def __call__(self, headers: Headers) -> Headers:
        """The same headers, in the same order, without the secrets."""
        secret = self._names
        for name, _ in headers:
            if name.lower() in secret:
                return tuple((name, PLACEHOLDER if name.lower() in secret else value) for name, value in headers)
        return headers
