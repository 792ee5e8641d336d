"""Which gRPC status a client makes of what it got: trailers, an HTTP status, a reset, or nothing.

From PROTOCOL-HTTP2.md and http-grpc-status-mapping.md of https://github.com/grpc/grpc/tree/master/doc; where these
leave it open, what grpc's C core does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from app.loom.call import Headers, Status

CANCEL: Final = 0x8
HTTP_OK: Final = 200

_HTTP: Final[Mapping[int, Status]] = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
_RESET: Final[Mapping[int, Status]] = {
    0x7: Status.UNAVAILABLE,  # REFUSED_STREAM
    CANCEL: Status.CANCELLED,
    0xB: Status.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: Status.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}
_STATUSES: Final = {str(status.value).encode(): status for status in Status}
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_GRPC: Final = re.compile(rb"application/grpc(?:[+;].*)?", re.DOTALL)

SLACK_S: Final = 0.010
SLACK_SHARE: Final = 0.05
"""A reset so shortly before the deadline, or this share of it, came from the deadline: the client's clock runs from
before its headers are sent, and it rounds what it sends."""


class RequestHead(NamedTuple):
    """What a request's headers say of the call."""

    method: str
    authority: str
    timeout_s: float | None
    is_grpc: bool


class ResponseHead(NamedTuple):
    """What a backend's headers or trailers say. A status is there only where one of gRPC's was sent."""

    http_status: int | None
    status: Status | None
    message: str
    is_grpc: bool


def read_request(headers: Headers) -> RequestHead:
    """The first of each name counts."""
    found = dict(reversed(headers))
    return RequestHead(
        _text(found.get(b":path", b"")),
        _text(found.get(b":authority", found.get(b"host", b""))),
        _timeout_s(found.get(b"grpc-timeout", b"")),
        _GRPC.fullmatch(found.get(b"content-type", b"")) is not None,
    )


def read_response(headers: Headers) -> ResponseHead:
    """Headers or trailers. A `grpc-status` that no status has counts as UNKNOWN, one that is no number as INTERNAL."""
    found = dict(reversed(headers))
    http_status = found.get(b":status", b"")
    status = found.get(b"grpc-status")
    return ResponseHead(
        int(http_status) if len(http_status) == 3 and http_status.isdigit() else None,
        None if status is None else _STATUSES.get(status, Status.UNKNOWN if status.isdigit() else Status.INTERNAL),
        _unescaped(found.get(b"grpc-message", b"")),
        _GRPC.fullmatch(found.get(b"content-type", b"")) is not None,
    )


def of_http(http_status: int) -> Status:
    """Of an answer without `grpc-status`."""
    return _HTTP.get(http_status, Status.UNKNOWN)


def of_reset(code: int, elapsed_s: float, timeout_s: float | None) -> Status:
    """Of a RST_STREAM, from either side, so long after the call began.

    Clients reset a call with CANCEL both when it is cancelled and when its deadline is over, so time tells these apart.
    """
    if code == CANCEL and timeout_s is not None and elapsed_s >= timeout_s - max(SLACK_S, SLACK_SHARE * timeout_s):
        return Status.DEADLINE_EXCEEDED
    return _RESET.get(code, Status.INTERNAL)


def _timeout_s(value: bytes) -> float | None:
    match = _TIMEOUT.fullmatch(value)
    return None if match is None else int(match[1]) * _UNITS_S[match[2]]


def _unescaped(value: bytes) -> str:
    if b"%" in value:
        value = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), value)
    return value.decode("utf-8", "replace")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
