"""A record as one line of JSON, and back: the shape that Loom's users know, with fields of our own besides.

Known fields: `id`, `timestamp`, `method`, `streamKind`, `request` and `response` (of `index`, `json`, `raw`: the
message in base64 with its 5-byte prefix), `statusCode`, `statusName`, `grpcMessage`, `durationMs`, `error`, `mutated`.
`json` is left empty where the line is written, so that recording stays cheap, and made by `export`; a message that has
it and no `raw` is known by it alone. Ours: `schema` (hash), `schemaSet` (the descriptors, in the first line that needs
them), `peer`, `authority`, `metadata`, `responseMetadata`, `trailers`, `ending`, `httpStatus`, `resetCode`,
`timeoutMs`, `messagesLeftOut`, `mutations`, `sameInFlight`, and in messages `atMs` and `cut`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from app.loom.call import Altered, Direction, Ended, Ending, Headers, Started, Status, StreamKind
from app.loom.recording.record import MESSAGE_BYTES, Herd, Kept, Record

MAX_LINE_BYTES: Final = 64 << 20
"""A line that is longer is not read."""

_DIRECTIONS: Final = {"request": Direction.REQUEST, "response": Direction.RESPONSE}


class LineError(Exception):
    """A line that is no record; the text says why."""


def to_line(record: Record, kind: StreamKind, schema_set: bytes | None = None) -> bytes:
    """One that has ended, with its line break; `schema_set` goes along where it is given."""
    fields = to_fields(record, kind)
    if schema_set is not None:
        fields["schemaSet"] = _base64(schema_set)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def to_fields(record: Record, kind: StreamKind) -> dict[str, Any]:
    """What `json.dumps` takes. Of a live record too, without its end."""
    started, ended = record.started, record.ended
    fields: dict[str, Any] = {
        "id": record.id,
        "timestamp": datetime.fromtimestamp(started.wall, UTC).isoformat().replace("+00:00", "Z"),
        "method": started.method,
        "streamKind": kind.value,
        "request": [_message(each, record) for each in record.of(Direction.REQUEST)],
        "response": [_message(each, record) for each in record.of(Direction.RESPONSE)],
        "peer": started.peer,
        "authority": started.authority,
        "metadata": _pairs(record.headers),
        "responseMetadata": _pairs(record.response_headers),
        "schema": record.schema,
        "messagesLeftOut": record.left_out,
        "mutated": record.is_mutated,
        "mutations": mutations(record),
        "timeoutMs": None if started.timeout_s is None else round(started.timeout_s * 1e3, 3),
        "sameInFlight": 0 if record.herd is None else record.herd.calls - 1,
    }
    if ended is not None:
        status = Status.UNKNOWN if ended.status is None else ended.status
        fields |= {
            "statusCode": str(status.value),
            "statusName": status.name,
            "grpcMessage": ended.message,
            "durationMs": round((ended.at - started.at) * 1e3, 3),
            "error": "" if status is Status.OK else ended.message or status.name,
            "ending": ended.ending.value,
            "trailers": _pairs(ended.trailers),
            "httpStatus": ended.http_status,
            "resetCode": ended.reset_code,
        }
    return fields


def from_line(line: bytes) -> tuple[Record, str | None, bytes | None]:
    """A record, the kind that it names, and the descriptors that it brings along. Raises `LineError`."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise LineError("not JSON") from error
    if not isinstance(fields, dict):
        raise LineError("not a JSON object")
    try:
        return _record(fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, binascii.Error) as error:
        raise LineError(f"not a record: {type(error).__name__} {error}") from error


def _record(fields: Mapping[str, Any]) -> tuple[Record, str | None, bytes | None]:
    method = str(fields["method"])
    if not method.startswith("/"):
        method = "/" + method
    wall = datetime.fromisoformat(_microseconds(fields["timestamp"])).timestamp()
    started = Started(
        call=0,
        at=0.0,
        wall=wall,
        connection=0,
        stream=0,
        peer=str(fields.get("peer", "")),
        method=method,
        authority=str(fields.get("authority", "")),
        headers=(),
        timeout_s=None if fields.get("timeoutMs") is None else _seconds(fields, "timeoutMs"),
    )
    record = Record(str(fields["id"]), started, _headers(fields.get("metadata")))
    record.response_headers = _headers(fields.get("responseMetadata"))
    status = _status(fields)
    messages = [
        (each, number, direction)
        for name, direction in _DIRECTIONS.items()
        for number, each in enumerate(fields.get(name) or ())
        if not _is_none(each, direction, status)
    ]
    kept = [_kept(*each) for each in messages]
    record.texts = {
        (direction, int(each.get("index", number))): _json(each)
        for each, number, direction in messages
        if not each.get("raw") and each.get("json", "{}") != "{}"  # which is the empty message, of any type
    }
    record.messages = sorted(kept, key=lambda each: each.at_s)  # where times are missing: requests first, as they were
    record.size_bytes += sum(len(each.data) + MESSAGE_BYTES for each in kept) + sum(map(len, record.texts.values()))
    record.left_out = int(fields.get("messagesLeftOut", 0))
    record.requests, record.responses = (len(record.of(direction)) for direction in _DIRECTIONS.values())
    record.schema = None if fields.get("schema") is None else str(fields["schema"])
    record.altered = [_altered(each) for each in fields.get("mutations") or ()]
    if fields.get("sameInFlight"):
        record.herd = Herd(0)
        record.herd.calls = int(fields["sameInFlight"]) + 1
    record.ended = Ended(
        call=0,
        at=_seconds(fields, "durationMs"),
        ending=Ending(fields.get("ending", Ending.TRAILERS.value)),
        status=status,
        message=str(fields.get("grpcMessage") or fields.get("error") or ""),
        trailers=_headers(fields.get("trailers")),
        http_status=fields.get("httpStatus"),
        reset_code=fields.get("resetCode"),
        requests=record.requests,
        responses=record.responses,
    )
    schema_set = fields.get("schemaSet")
    kind = fields.get("streamKind")
    return record, kind, None if schema_set is None else base64.b64decode(schema_set, validate=True)


def mutations(record: Record) -> list[dict[str, Any]]:
    """What rules have done: `index` is the message's, `None` for headers; `problem` is why one is as it was."""
    return [
        {"direction": each.direction.value, "index": each.position, "problem": each.problem} for each in record.altered
    ]


def _altered(fields: Mapping[str, Any]) -> Altered:
    index = fields.get("index")
    position = None if index is None else int(index)
    return Altered(None, 0.0, _DIRECTIONS[fields["direction"]], position, str(fields.get("problem", "")))


def _message(kept: Kept, record: Record) -> dict[str, Any]:
    text = record.texts.get((kept.direction, kept.position))
    if text is not None:
        return {"index": kept.position, "json": text, "raw": "", "atMs": round(kept.at_s * 1e3, 3)}
    prefix = bytes([kept.compressed]) + kept.size.to_bytes(4, "big")
    shown: dict[str, Any] = {"index": kept.position, "json": "", "raw": _base64(prefix + kept.data)}
    shown["atMs"] = round(kept.at_s * 1e3, 3)
    if len(kept.data) < kept.size:
        shown["cut"] = True
    return shown


def _kept(fields: Mapping[str, Any], number: int, direction: Direction) -> Kept:
    raw = base64.b64decode(fields.get("raw") or b"", validate=True)
    if len(raw) < 5:
        raw = b"\0\0\0\0\0"
    size = int.from_bytes(raw[1:5], "big")
    at_s = _seconds(fields, "atMs")
    return Kept(direction, int(fields.get("index", number)), at_s, raw[5 : 5 + size], size, bool(raw[0] & 1))


def _is_none(fields: Mapping[str, Any], direction: Direction, status: Status) -> bool:
    """The original tells an empty response, without bytes, where a call failed and had none."""
    is_empty = not fields.get("raw") and fields.get("json", "{}") == "{}"
    return is_empty and direction is Direction.RESPONSE and status is not Status.OK


def _json(fields: Mapping[str, Any]) -> str:
    text = fields["json"]
    if not isinstance(text, str):
        raise TypeError("of a message whose json is no string")
    json.loads(text)
    return text


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    """Of milliseconds, none where they are missing."""
    milliseconds = float(fields.get(name, 0.0))
    if not 0 <= milliseconds < math.inf:
        raise ValueError(f"{name} is no length of time")
    return milliseconds / 1e3


def _status(fields: Mapping[str, Any]) -> Status:
    """By number or by name: both have been seen in the field."""
    for value in (fields.get("statusName"), fields.get("statusCode")):
        text = "".join(letter if letter.isalnum() else "_" for letter in str(value)).upper()
        if text.isdecimal() and int(text) <= max(Status):
            return Status(int(text))
        for status in Status:
            if text in (status.name, status.name.replace("_", "")) or (text, status) == ("CANCELED", Status.CANCELLED):
                return status
    return Status.UNKNOWN


def _microseconds(timestamp: str) -> str:
    """Go writes nanoseconds, which `datetime` does not read."""
    whole, dot, rest = timestamp.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return f"{whole}{dot}{digits[:6]}{rest[len(digits) :]}".replace("Z", "+00:00")


def _pairs(headers: Headers) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def _headers(pairs: Sequence[Sequence[str]] | None) -> Headers:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs or ())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
