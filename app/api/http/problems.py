"""Errors as RFC 9457 problem details, and the one table from errors to statuses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Request, Response
from starlette.exceptions import HTTPException

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
    Violation,
)

CONTENT_TYPE = "application/problem+json"


class RequestError(Exception):
    """The request is wrong in a way that only HTTP knows. `str(error)` is fit for clients."""

    code: ClassVar[str]

    def __init__(self, detail: str, *violations: Violation) -> None:
        super().__init__(detail)
        self.violations = violations


class MalformedRequestError(RequestError):
    """A query parameter, a header or the JSON syntax of the body is not of the form it must have."""

    code = "malformed_request"


class RequestTimeoutError(RequestError):
    """The body did not come in time."""

    code = "request_timeout"


class UnsupportedMediaTypeError(RequestError):
    """The body is of a type that is not understood."""

    code = "unsupported_media_type"


class BodyTooLargeError(RequestError):
    """The body is larger than the server takes."""

    code = "body_too_large"


STATUSES: Mapping[type[Exception], HTTPStatus] = {
    MalformedRequestError: HTTPStatus.BAD_REQUEST,
    TemplateNotFoundError: HTTPStatus.NOT_FOUND,
    RequestTimeoutError: HTTPStatus.REQUEST_TIMEOUT,
    RequestIdReusedError: HTTPStatus.CONFLICT,
    VersionMismatchError: HTTPStatus.PRECONDITION_FAILED,
    BodyTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    StorageUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    OverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    StoppingError: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceededError: HTTPStatus.GATEWAY_TIMEOUT,
}
"""The table. A subclass of an error that is listed has its status."""


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    violations: tuple[Violation, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem+json response; `code` is the machine-readable kind, `detail` says what was wrong."""
    body: dict[str, Any] = {
        "type": f"urn:problem:{code.replace('_', '-')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if violations:
        body["errors"] = [{"field": violation.field, "reason": violation.reason} for violation in violations]
    text = json.dumps(body, ensure_ascii=True)
    extra = {"Cache-Control": "no-store", **(headers or {})}
    return Response(text, status_code=status, headers=extra, media_type=CONTENT_TYPE)


def for_error(error: DomainError | RequestError) -> Response:
    """The response for an error, by the table."""
    status = next((STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES), None)
    if status is None:
        return internal()
    headers = {}
    if isinstance(error, StorageUnavailableError | OverloadedError | StoppingError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, BodyTooLargeError | RequestTimeoutError):
        headers["Connection"] = "close"  # rather than read the rest of the body
    return problem(
        status,
        error.code,
        str(error),
        violations=error.violations if isinstance(error, InvalidInputError | RequestError) else (),
        headers=headers,
    )


def internal() -> Response:
    """The response to a bug; what went wrong is in the log, and nowhere else."""
    return problem(500, "internal", "the server failed to answer this request")


def ending() -> Response:
    """The response to a request that the end of the process leaves no time for."""
    return problem(503, "shutting_down", "the server is shutting down", headers={"Retry-After": "1"})


async def on_error(_request: Request, error: Exception) -> Response:
    """Exception handler for `DomainError` and `RequestError`."""
    assert isinstance(error, DomainError | RequestError)  # noqa: S101 - registered for these only
    return for_error(error)


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Exception handler for the framework's own, such as a route that does not exist."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it only
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return problem(error.status_code, code, str(error.detail), headers=error.headers)
