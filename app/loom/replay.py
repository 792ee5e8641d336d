"""A recorded call made again."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc

from app.loom.call import Direction, Ended, Ending, Headers, Message, Started, Status, binary_value
from app.loom.compression import CompressionError
from app.loom.decoding import plain
from app.loom.grpcurl import RESERVED
from app.loom.recording.record import Record
from app.loom.recording.redaction import PLACEHOLDER, Redaction

TIMEOUT_S: Final = 60.0
"""Of a call that was made without a deadline."""
MAX_TIMEOUT_S: Final = 86_400.0
"""Of one with a later deadline: gRPC can't tell those that are far off."""
MAX_RESPONSES: Final = 10_000
MAX_RESPONSE_BYTES: Final = 64 << 20
"""A call that brings more than either is cancelled."""

_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(rb"[\x20-\x7e]*")

Metadata = tuple[tuple[str, str | bytes], ...]


class ReplayError(Exception):
    """This call can't be made again; the text says why."""


def secrets_of(record: Record) -> frozenset[str]:
    """Names of request metadata that was redacted, and must be given."""
    return frozenset(name.decode("latin-1") for name, value in record.headers if value == PLACEHOLDER)


async def replay(channel: grpc.Channel, record: Record, given: Mapping[str, str] | None = None) -> Record:
    """Make the call again, at once and with its deadline, and record what comes of it. Raises `ReplayError`.

    `given` replaces metadata, by lower-case name, values of `-bin` names in base64; an empty value leaves it out. What
    was redacted must be in it. A call that its client cancelled is cancelled again once as many responses have come,
    or, where there were none, after as long.
    """
    # In a thread: where a call ends just as it is written to, grpc.aio says INTERNAL, whatever the server said.
    requests = _requests(record)
    metadata = _metadata(record.headers, given or {})
    timeout_s = TIMEOUT_S if record.started.timeout_s is None else min(record.started.timeout_s, MAX_TIMEOUT_S)
    started = Started(0, time.monotonic(), time.time(), 0, 0, "", record.started.method, "", (), timeout_s)
    made = Record(f"{record.id}-again", started, record.headers)
    made.schema = record.schema
    made.messages += [
        Message(0, made.started.at, Direction.REQUEST, position, compressed=False, data=data, size=len(data))
        for position, data in enumerate(requests)
    ]
    made.requests = len(requests)
    most, cancel_after_s = _cancelled_after(record)
    call = _call(channel, record.started.method, requests, metadata, timeout_s)
    timer = None
    if cancel_after_s is not None:
        timer = asyncio.get_running_loop().call_later(cancel_after_s, call.cancel)
    try:
        await asyncio.to_thread(_listen, call, made, most, Redaction(_redacted(record)))
    except asyncio.CancelledError:
        call.cancel()
        raise
    finally:
        if timer is not None:
            timer.cancel()
    return made


def _requests(record: Record) -> list[bytes]:
    kept = record.of(Direction.REQUEST)
    if any((each.direction, each.position) in record.texts for each in kept):
        raise ReplayError("its requests were recorded as JSON alone, and their types are not known")
    if [each.position for each in kept] != list(range(len(kept))) or (record.left_out and not kept):
        raise ReplayError("not all of its requests were kept")
    for each in kept:
        if len(each.data) < each.size:
            raise ReplayError(f"its request {each.position} was cut, at {len(each.data)} of {each.size} bytes")
    try:
        return [plain(record, each) for each in kept]
    except CompressionError as error:
        raise ReplayError(f"a request can't be read: {error}") from error


def _metadata(headers: Headers, given: Mapping[str, str]) -> Metadata:
    found: list[tuple[str, str | bytes]] = []
    for raw, value in headers:
        if raw.startswith((b":", b"grpc-")) or raw in RESERVED:
            continue
        name = raw.decode("latin-1")
        if name in given:
            continue
        if not _NAME.fullmatch(name):
            raise ReplayError(f"its metadata {name!r} can't be sent: that is no name")
        if value == PLACEHOLDER:
            raise ReplayError(f"its {name} was redacted, and is not given")
        found += [(name, each) for each in _values(name, value)]
    for name, text in given.items():
        if not _NAME.fullmatch(name):
            raise ReplayError(f"metadata {name[:100]!r} can't be sent: that is no name")
        if text:
            found += [(name, each) for each in _values(name, text.encode("utf-8"))]
    return tuple(found)


def _values(name: str, value: bytes) -> list[str | bytes]:
    if name.endswith("-bin"):
        try:
            return [binary_value(value)] if value.startswith(b"\0") else [*map(binary_value, value.split(b","))]
        except ValueError:
            raise ReplayError(f"its metadata {name} can't be sent: not base64") from None
    if not _TEXT.fullmatch(value):
        raise ReplayError(f"its metadata {name} can't be sent: not printable ASCII")
    return [value.decode("ascii")]


def _call(channel: grpc.Channel, method: str, requests: Sequence[bytes], metadata: Metadata, timeout_s: float) -> Any:
    # On the wire a kind is no more than how many messages each side sends.
    if len(requests) == 1:
        return channel.unary_stream(method)(requests[0], metadata=metadata, timeout=timeout_s)
    return channel.stream_stream(method)(iter(requests), metadata=metadata, timeout=timeout_s)


def _listen(call: Any, made: Record, most: int, redaction: Redaction) -> None:
    room = MAX_RESPONSE_BYTES
    try:
        for data in call:
            now, position = time.monotonic(), made.responses
            made.messages.append(
                Message(0, now, Direction.RESPONSE, position, compressed=False, data=data, size=len(data))
            )
            made.responses += 1
            room -= len(data)
            if made.responses >= most or room < 0:
                call.cancel()
                break
    except grpc.RpcError:
        pass  # its status tells
    made.response_headers = redaction(_headers(call.initial_metadata()))
    made.ended = Ended(
        call=0,
        at=time.monotonic(),
        ending=Ending.RESET_BY_CLIENT if call.cancelled() else Ending.TRAILERS,
        status=Status(call.code().value[0]),
        message=call.details() or "",
        trailers=redaction(_headers(call.trailing_metadata())),
        http_status=None,
        reset_code=None,
        requests=made.requests,
        responses=made.responses,
    )


def _cancelled_after(original: Record) -> tuple[int, float | None]:
    """After how many responses, and after how many seconds, the client is to cancel."""
    ended = original.ended
    if ended is None or ended.status is not Status.CANCELLED:
        return MAX_RESPONSES, None
    if ended.ending not in (Ending.RESET_BY_CLIENT, Ending.CLIENT_LOST):
        return MAX_RESPONSES, None
    if ended.responses + original.left_out:
        return ended.responses + original.left_out, None
    return MAX_RESPONSES, min(original.duration_s or 0.0, TIMEOUT_S)


def _redacted(record: Record) -> list[str]:
    """What was secret then is so again."""
    trailers = () if record.ended is None else record.ended.trailers
    return [name.decode("latin-1") for name, value in (*record.response_headers, *trailers) if value == PLACEHOLDER]


def _headers(metadata: Any) -> Headers:
    return tuple(
        (name.encode("ascii"), base64.b64encode(value) if isinstance(value, bytes) else value.encode("utf-8"))
        for name, value in metadata or ()
    )
