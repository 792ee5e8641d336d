"""What can go wrong with a call, by its status, with what the service said about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

DETAILS_KEY = "grpc-status-details-bin"
KNOWN: tuple[type[Message], ...] = (ErrorInfo, BadRequest, RetryInfo, PreconditionFailure, ResourceInfo)
"""The google.rpc details that are decoded; others are left out."""

D = TypeVar("D", bound=Message)


class ClientError(Exception):
    """Base of all that the client raises on its own account; the text is one line, fit for users."""


class EndpointError(ClientError, ValueError):
    """The service can't be spoken to in the way that was asked for: a malformed target, an unusable file or token."""


class Violation(NamedTuple):
    """One thing wrong with one field of a request."""

    field: str
    description: str


class CallError(ClientError):
    """A call did not end well. One with a status that has no class of its own below is of this class itself.

    `text` is what the service said, or gRPC where the service was not reached. `details` are the google.rpc details
    that came with it; the properties pick from them.
    """

    def __init__(self, status: grpc.StatusCode, text: str, details: tuple[Message, ...] = ()) -> None:
        super().__init__(f"{status.name}: {text}" if text else status.name)
        self.status = status
        self.text = text
        self.details = details

    @property
    def reason(self) -> str:
        """The error's stable, machine-readable name, such as `TEMPLATE_NOT_FOUND`; empty where none came."""
        return next((info.reason for info in self._each(ErrorInfo)), "")

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What is wrong with the request, field by field."""
        return tuple(Violation(v.field, v.description) for bad in self._each(BadRequest) for v in bad.field_violations)

    @property
    def retry_after_s(self) -> float | None:
        """How many seconds to wait at least before another try; `None` where nothing was said."""
        return next((info.retry_delay.ToTimedelta().total_seconds() for info in self._each(RetryInfo)), None)

    def _each(self, kind: type[D]) -> Iterator[D]:
        return (detail for detail in self.details if isinstance(detail, kind))


class InvalidArgumentError(CallError):
    """The request breaks a rule; `violations` says which."""


class NotFoundError(CallError):
    """No template has this id."""


class AbortedError(CallError):
    """The version is not the expected one: read again and decide anew."""


class AlreadyExistsError(CallError):
    """The request id was used before, for a write with another content."""


class UnavailableError(CallError):
    """The service can't be reached, or can't reach its database. Was tried again already where that is safe."""


class OverloadedError(CallError):
    """The service is too busy (RESOURCE_EXHAUSTED), or a message is too large."""


class DeadlineExceededError(CallError, TimeoutError):
    """No answer within the call's time, or none left of the caller's before it began."""


class UnauthenticatedError(CallError):
    """The service asks for a token that this client does not have, or has a wrong one of."""


class PermissionDeniedError(CallError):
    """The token is known, and not allowed to do this."""


class InternalError(CallError):
    """A fault of the service."""


ERRORS: Mapping[grpc.StatusCode, type[CallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.INTERNAL: InternalError,
}


def call_error(error: grpc.aio.AioRpcError) -> CallError:
    """The error that a failed call is told as."""
    return _made(error.code(), error.details() or "", _details(error.trailing_metadata()))


def status_error(status: Status) -> CallError:
    """The error of one request of many on a stream."""
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    return _made(code, status.message, _unpacked(status))


def _made(status: grpc.StatusCode, text: str, details: Iterator[Message]) -> CallError:
    return ERRORS.get(status, CallError)(status, " ".join(text.split()), tuple(details))


def _details(metadata: grpc.aio.Metadata | None) -> Iterator[Message]:
    """What is malformed is left out: an error must not be hidden by another one in telling it."""
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            with suppress(DecodeError):
                yield from _unpacked(Status.FromString(value))


def _unpacked(status: Status) -> Iterator[Message]:
    for each in status.details:
        for kind in KNOWN:
            detail = kind()
            with suppress(DecodeError):
                if each.Unpack(detail):
                    yield detail
