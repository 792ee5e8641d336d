"""Why there is no schema, or why it does not fit."""

from __future__ import annotations


class SchemaError(Exception):
    """Base of the errors below; the text is one line, fit for a person."""


class SchemaUnavailableError(SchemaError):
    """No descriptors can be had from there now."""


class SchemaFileError(SchemaError):
    """A file or folder that the person named cannot be used."""


class TranscodeError(SchemaError):
    """Bytes that are no message of their type, or JSON that is none."""
