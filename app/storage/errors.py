"""What storage raises besides the domain's errors. Both are for an operator: one line each, fit for a terminal."""

from __future__ import annotations

from app.domain.errors import StorageUnavailableError


class DatabaseUnreachableError(StorageUnavailableError):
    """PostgreSQL could not be reached at start, in all the time that was given; the message says where and why."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.args = (reason,)


class StorageConfigurationError(Exception):
    """PostgreSQL, or the driver, refuses what it was given, and trying again would not help. Holds no password."""


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message names the file and the reason."""
