"""The template entity and its rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.domain.errors import InvalidInputError, Violation

MAX_ID = 2**63 - 1
"""Ids are PostgreSQL bigints: 1 to 2^63 - 1."""
MAX_NAME_CHARS = 200
MAX_BODY_CHARS = 65_536


@dataclass(frozen=True, slots=True)
class Template:
    """A stored template. `version` starts at 1 and rises with every write; `updated_at` is aware, in UTC."""

    id: int
    name: str
    body: str
    version: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class TemplatePatch:
    """What a client may write of a template that exists; `None` leaves a field as it is.

    Raises `InvalidInputError`, naming every broken rule at once.
    """

    name: str | None = None
    body: str | None = None

    def __post_init__(self) -> None:
        violations: list[Violation] = []
        if self.name is not None:
            violations += _text_violations("name", self.name, MAX_NAME_CHARS)
            if not self.name.strip():
                violations.append(Violation("name", "must not be blank"))
        if self.body is not None:
            violations += _text_violations("body", self.body, MAX_BODY_CHARS)
        if violations:
            raise InvalidInputError(*violations)


@dataclass(frozen=True, slots=True)
class TemplateDraft(TemplatePatch):
    """All of a template that is not assigned by the store: what a new one is made of, and a patch that writes all."""

    name: str
    body: str


def check_id(template_id: int) -> int:
    """The id itself, or `InvalidInputError` where it is outside 1 to `MAX_ID`."""
    if not 1 <= template_id <= MAX_ID:
        raise InvalidInputError(Violation("id", f"must be a whole number from 1 to {MAX_ID}"))
    return template_id


def _text_violations(field: str, text: str, max_chars: int) -> list[Violation]:
    violations = []
    if len(text) > max_chars:
        violations.append(Violation(field, f"must have at most {max_chars} characters, has {len(text)}"))
    if "\x00" in text:
        violations.append(Violation(field, "must not contain the character U+0000"))
    try:
        text.encode()
    except UnicodeEncodeError:
        violations.append(Violation(field, "must not contain a lone surrogate"))
    return violations
