"""Answers that Loom gives itself, each one header block: trailers-only, as gRPC calls it."""

from __future__ import annotations

import base64
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as StatusProto

from app.loom.call import Headers, Status

DOMAIN: Final = "loom"
"""Of the google.rpc.ErrorInfo, by which clients tell Loom's own answers from the backend's."""


def trailers_only(status: Status, message: str, details: bytes = b"") -> Headers:
    """A status; `details` is a serialised google.rpc.Status."""
    headers = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", str(status.value).encode()),
    ]
    if message:
        headers.append((b"grpc-message", _escaped(message)))
    if details:
        headers.append((b"grpc-status-details-bin", base64.b64encode(details).rstrip(b"=")))
    return tuple(headers)


def unavailable(reason: str, message: str, retry_after_s: float) -> Headers:
    """UNAVAILABLE, with google.rpc's ErrorInfo (`reason`, in UPPER_SNAKE_CASE) and RetryInfo in its details."""
    details = StatusProto(code=Status.UNAVAILABLE.value, message=message)
    delay = Duration()
    delay.FromMilliseconds(max(0, round(retry_after_s * 1e3)))
    for detail in (ErrorInfo(reason=reason, domain=DOMAIN), RetryInfo(retry_delay=delay)):
        details.details.add().Pack(detail)
    return trailers_only(Status.UNAVAILABLE, message, details.SerializeToString())


def _escaped(message: str) -> bytes:
    """As gRPC's protocol has it: printable ASCII but for the percent sign stands for itself."""
    return b"".join(
        bytes([byte]) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in message.encode()
    )
