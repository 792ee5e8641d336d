"""A write that names itself, so that it can be told apart from a new one when it is sent again."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from app.domain.errors import InvalidInputError, Violation

MAX_REQUEST_ID_CHARS = 128
REQUEST_LIFE = timedelta(hours=24)
"""How long the answer to a write is kept for a second one with the same id."""


def check_request_id(request_id: str) -> str:
    """The id itself, or `InvalidInputError` where it is empty, too long or not all printable ASCII."""
    if not 1 <= len(request_id) <= MAX_REQUEST_ID_CHARS or not (request_id.isascii() and request_id.isprintable()):
        raise InvalidInputError(
            Violation("request_id", f"must have 1 to {MAX_REQUEST_ID_CHARS} printable ASCII characters, best a UUID")
        )
    return request_id


class Fingerprint:
    """What a write is about: the SHA-256 of its kind and its content, part by part.

    Kept for `REQUEST_LIFE` and compared by other releases of this program: what it is made of must not change.
    """

    def __init__(self, *parts: str | int | None) -> None:
        self._hash = hashlib.sha256()
        self.add(*parts)

    def add(self, *parts: str | int | None) -> None:
        """Goes on with these parts. Where one ends and the next begins counts, and so does their kind."""
        for part in parts:
            if part is None:
                self._hash.update(b"-")
            else:
                content = str(part).encode()
                kind = b"t" if isinstance(part, str) else b"n"
                self._hash.update(b"%b%d:%b" % (kind, len(content), content))

    def digest(self) -> bytes:
        """The 32 bytes, of all parts until now."""
        return self._hash.digest()
