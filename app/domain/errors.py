"""Everything that a use case can raise. Each API maps these to its statuses in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field of the input."""

    field: str
    reason: str


class DomainError(Exception):
    """Base of the errors below. `code` is stable and machine-readable; `str(error)` is fit for clients."""

    code: ClassVar[str] = "error"


class InvalidInputError(DomainError):
    """The input breaks a rule of the domain; `violations` says which, field by field."""

    code = "invalid_input"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.reason}" for v in violations))
        self.violations = violations

    def within(self, path: str) -> InvalidInputError:
        """The same where the input is a part of a larger one: `name` becomes `path.name`."""
        return InvalidInputError(*(Violation(f"{path}.{v.field}", v.reason) for v in self.violations))


class TemplateNotFoundError(DomainError):
    """No template has this id."""

    code = "template_not_found"

    def __init__(self, template_id: int) -> None:
        super().__init__(f"there is no template with id {template_id}")
        self.template_id = template_id


class VersionMismatchError(DomainError):
    """A conditional write named a version that is not the current one: somebody else wrote in between."""

    code = "version_mismatch"

    def __init__(self, template_id: int, current: int) -> None:
        super().__init__(f"template {template_id} is at version {current}, which is not the expected one")
        self.template_id = template_id
        self.current = current


class RequestIdReusedError(DomainError):
    """The request id was given before, to a write of another kind or content; nothing was done."""

    code = "request_id_reused"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"the request id {request_id!r} was used for another write: a new write needs a new id")
        self.request_id = request_id


class StorageUnavailableError(DomainError):
    """The database cannot be reached or did not answer in time; try again in `retry_after_s` seconds."""

    code = "storage_unavailable"

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("the database is unavailable")
        self.retry_after_s = retry_after_s


class OverloadedError(DomainError):
    """Too much is waiting already, and this request was refused at once rather than queued."""

    code = "overloaded"

    def __init__(
        self, retry_after_s: float = 1.0, text: str = "too many requests are waiting for the same data"
    ) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class StoppingError(DomainError):
    """The service is about to stop, so it ends what would go on for ever; another replica may take over."""

    code = "stopping"

    def __init__(self, retry_after_s: float = 0.1) -> None:
        super().__init__("the service is about to stop: ask again")
        self.retry_after_s = retry_after_s


class DeadlineExceededError(DomainError):
    """The caller's time ran out; the work may go on for others."""

    code = "deadline_exceeded"

    def __init__(self, text: str = "the answer did not come in time") -> None:
        super().__init__(text)
