"""Which gRPC status each error ends a call with, and the google.rpc details that go with it.

Details follow google/rpc/error_details.proto and https://google.aip.dev/193: ErrorInfo always, and what else fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from app.api.grpc.errors import (
    CallError,
    InvalidMetadataError,
    MalformedMessageError,
    RateLimitedError,
    UnauthenticatedError,
    UnknownMethodError,
)
from app.domain.errors import (
    DeadlineExceededError,
    DomainError,
    InvalidInputError,
    OverloadedError,
    RequestIdReusedError,
    StoppingError,
    StorageUnavailableError,
    TemplateNotFoundError,
    VersionMismatchError,
)

STATUSES: Mapping[type[DomainError | CallError], grpc.StatusCode] = {
    InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    TemplateNotFoundError: grpc.StatusCode.NOT_FOUND,
    VersionMismatchError: grpc.StatusCode.ABORTED,
    RequestIdReusedError: grpc.StatusCode.ALREADY_EXISTS,
    StorageUnavailableError: grpc.StatusCode.UNAVAILABLE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    StoppingError: grpc.StatusCode.UNAVAILABLE,
    MalformedMessageError: grpc.StatusCode.INVALID_ARGUMENT,
    InvalidMetadataError: grpc.StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    RateLimitedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnknownMethodError: grpc.StatusCode.UNIMPLEMENTED,
}
"""The table. A subclass of an error that is listed has its status."""

DOMAIN = "template.v1"
"""Whose reasons ErrorInfo's are."""
DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC carries a serialised google.rpc.Status."""
INTERNAL_TEXT = "internal error"
"""All that a client is told of a bug."""

# Clients take 8 KiB of trailing metadata by default, and in it the text stands twice: percent-encoded, so up to three
# bytes for one, and in the details, which are base64.
MAX_TEXT_BYTES = 512
MAX_VIOLATIONS = 16
MAX_FIELD_BYTES = 64
MAX_REASON_BYTES = 96


def status_of(error: Exception) -> grpc.StatusCode:
    """The status of the error's nearest listed class; INTERNAL where none is: that is a bug."""
    for cls in type(error).__mro__:
        if cls in STATUSES:
            return STATUSES[cls]
    return grpc.StatusCode.INTERNAL


def rpc_status(error: Exception) -> Status:
    """What a client is told of the error, as google.rpc.Status: its code, text and details, all of bounded size.

    Nothing of an error that is not listed is told. Whoever answers with its status logs it.
    """
    code = status_of(error)
    if code is grpc.StatusCode.INTERNAL:
        return _status(code, INTERNAL_TEXT, [ErrorInfo(reason="INTERNAL", domain=DOMAIN)])
    reason = str(getattr(error, "code", "error")).upper()
    details = [ErrorInfo(reason=reason, domain=DOMAIN, metadata=_facts(error)), *_details(error)]
    return _status(code, _cut(str(error), MAX_TEXT_BYTES), details)


def _status(code: grpc.StatusCode, text: str, details: list[Message]) -> Status:
    packed = []
    for detail in details:
        wrapped = Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return Status(code=code.value[0], message=text, details=packed)


def _facts(error: Exception) -> dict[str, str]:
    """What a program may want to know of the error, besides its reason."""
    match error:
        case TemplateNotFoundError():
            return {"template_id": str(error.template_id)}
        case VersionMismatchError():
            return {"template_id": str(error.template_id), "current_version": str(error.current)}
    return {}


def _details(error: Exception) -> list[Message]:
    match error:
        case InvalidInputError():
            return [_bad_request(error)]
        case TemplateNotFoundError():
            return [_resource(error.template_id, str(error))]
        case VersionMismatchError():
            violation = PreconditionFailure.Violation(
                type="VERSION", subject=f"templates/{error.template_id}", description=str(error)
            )
            return [PreconditionFailure(violations=[violation])]
        case StorageUnavailableError() | OverloadedError() | StoppingError() | RateLimitedError():
            return [RetryInfo(retry_delay=timedelta(seconds=max(0.0, error.retry_after_s)))]
    return []


def _bad_request(error: InvalidInputError) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(
                field=_cut(violation.field, MAX_FIELD_BYTES), description=_cut(violation.reason, MAX_REASON_BYTES)
            )
            for violation in error.violations[:MAX_VIOLATIONS]
        ]
    )


def _resource(template_id: int, text: str) -> ResourceInfo:
    return ResourceInfo(
        resource_type="template.v1.Template", resource_name=f"templates/{template_id}", description=text
    )


def _cut(text: str, max_bytes: int) -> str:
    """The text, or as much of it as fits, whole characters and three dots at the end."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return encoded.decode("utf-8")
    return encoded[: max_bytes - 3].decode("utf-8", "ignore") + "..."
