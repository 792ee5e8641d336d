"""Which gRPC status each error ends a call with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import grpc

from app.domain.errors import (
    DeadlineExceededError,
    DomainError,
    InvalidInputError,
    OverloadedError,
    StorageUnavailableError,
    TemplateNotFoundError,
    VersionMismatchError,
)

STATUSES: Mapping[type[DomainError], grpc.StatusCode] = {
    InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    TemplateNotFoundError: grpc.StatusCode.NOT_FOUND,
    VersionMismatchError: grpc.StatusCode.ABORTED,
    StorageUnavailableError: grpc.StatusCode.UNAVAILABLE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The table. A subclass of an error that is listed has its status."""

INTERNAL_TEXT = "internal error"
"""All that a client is told of a bug."""

_log = logging.getLogger(__name__)


def status_of(error: DomainError) -> grpc.StatusCode:
    """The status of the error's nearest listed class; INTERNAL where none is."""
    for cls in type(error).__mro__:
        if cls in STATUSES:
            return STATUSES[cls]
    return grpc.StatusCode.INTERNAL


class Ending:
    """Around the body of a method: where the body raises, the call ends with the error's status.

    A domain error's text goes to the client. Anything else is a bug: it is logged, and the client gets INTERNAL with a
    fixed text. Cancellation passes: it means that the caller has gone or that its deadline has passed.
    """

    __slots__ = ("_context",)

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        status = status_of(error) if isinstance(error, DomainError) else grpc.StatusCode.INTERNAL
        if status is grpc.StatusCode.INTERNAL:
            _log.error("gRPC call failed", exc_info=error)
            await self._context.abort(status, INTERNAL_TEXT)
        await self._context.abort(status, str(error))
