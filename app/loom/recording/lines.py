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
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime
from struct import Struct
from typing import Any, Final

from app.loom.call import Altered, Direction, Ended, Ending, Headers, Message, Started, Status, StreamKind
from app.loom.recording.jsontext import boolean, quoted, timestamp
from app.loom.recording.memo import Memo
from app.loom.recording.record import MESSAGE_BYTES, Herd, Record

MAX_LINE_BYTES: Final = 64 << 20
"""A line that is longer is not read."""

_prefix = Struct(">?L").pack
_STATUSES: Final = {status: f'"statusCode":"{status:d}","statusName":"{status.name}"' for status in Status}
_OK: Final = Status.OK
_REQUEST: Final = Direction.REQUEST
_NO_MESSAGES: Final = '"request":[],"response":[]'
"""As a line has it; no text can hold it, in which quotes are escaped."""
_DIRECTIONS: Final = {"request": Direction.REQUEST, "response": Direction.RESPONSE}


class LineError(Exception):
    """A line that is no record; the text says why."""


def to_line(record: Record, kind: StreamKind) -> bytes:
    """One that has ended, with its line break."""
    return _bytes(f"{_text_of(record, kind)}\n")


def with_schema(line: bytes, schema_set: bytes) -> bytes:
    """The line, with the descriptors that explain its messages."""
    return b'%b,"schemaSet":"%b"}\n' % (line[:-2], binascii.b2a_base64(schema_set, newline=False))


def to_pieces(record: Record, kind: StreamKind) -> Iterator[bytes]:
    """The same line, message by message, so that a long one is never in memory as a whole."""
    bare = copy(record)
    bare.messages = []
    before, _, after = _text_of(bare, kind).partition(_NO_MESSAGES)
    yield _bytes(f'{before}"request":[')
    for direction in Direction:
        if direction is not _REQUEST:
            yield b'],"response":['
        for number, each in enumerate(record.of(direction)):
            yield _bytes(("," if number else "") + _message(each, record))
    yield _bytes(f"]{after}\n")


def to_fields(record: Record, kind: StreamKind) -> dict[str, Any]:
    """What `json.dumps` takes. Of a live record too, without its end."""
    fields: dict[str, Any] = json.loads(_text_of(record, kind))
    return fields


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text_of(record: Record, kind: StreamKind) -> str:
    """Written out, since it is by far the most that recording a call takes: building it up for `json` takes five times
    as long."""
    started, ended, herd = record.started, record.ended, record.herd
    requests: list[str] = []
    responses: list[str] = []
    for each in record.messages:
        (requests if each.direction is _REQUEST else responses).append(_message(each, record))
    timeout = "null" if started.timeout_s is None else f"{started.timeout_s * 1e3:.3f}"
    text = (
        f'{{"id":{quoted(record.id)},"timestamp":"{timestamp(started.wall)}","method":{quoted(started.method)},'
        f'"streamKind":"{kind._value_}","request":[{",".join(requests)}],"response":[{",".join(responses)}],'
        f'"peer":{quoted(started.peer)},"authority":{quoted(started.authority)},'
        f'"metadata":{_pairs(record.headers)},"responseMetadata":{_pairs(record.response_headers)},'
        f'"schema":{"null" if record.schema is None else quoted(record.schema)},'
        f'"messagesLeftOut":{record.left_out},{_altered_text(record) if record.altered else _UNALTERED},'
        f'"timeoutMs":{timeout},'
        f'"sameInFlight":{0 if herd is None else herd.calls - 1}'
    )
    if ended is None:
        return text + "}"
    status = Status.UNKNOWN if ended.status is None else ended.status
    error = "" if status is _OK else ended.message or status.name
    return (
        f'{text},{_STATUSES[status]},"grpcMessage":{quoted(ended.message)},'
        f'"durationMs":{(ended.at - started.at) * 1e3:.3f},"error":{quoted(error)},"ending":"{ended.ending._value_}",'
        f'"trailers":{_pairs(ended.trailers)},'
        f'"httpStatus":{"null" if ended.http_status is None else ended.http_status},'
        f'"resetCode":{"null" if ended.reset_code is None else ended.reset_code}}}'
    )


def from_line(line: bytes) -> tuple[Record, str | None, bytes | None]:
    """A record, the kind that it names, and the descriptors that it brings along. Raises `LineError`."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError("not JSON, or nested too deeply") from error
    if not isinstance(fields, dict):
        raise LineError("not a JSON object")
    try:
        return _record(fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, RecursionError) as error:
        raise LineError(f"not a record: {type(error).__name__} {error}") from error


def _record(fields: Mapping[str, Any]) -> tuple[Record, str | None, bytes | None]:
    method = _text(fields["method"])
    if not method.startswith("/"):
        method = "/" + method
    wall = datetime.fromisoformat(_microseconds(fields["timestamp"])).timestamp()
    timestamp(wall)  # raises for what is, in UTC, in no year that can be written
    started = Started(
        call=0,
        at=0.0,
        wall=wall,
        connection=0,
        stream=0,
        peer=_text(fields.get("peer", "")),
        method=method,
        authority=_text(fields.get("authority", "")),
        headers=(),
        timeout_s=None if fields.get("timeoutMs") is None else _seconds(fields, "timeoutMs"),
    )
    record = Record(_text(fields["id"]), started, _headers(fields.get("metadata")))
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
    record.messages = sorted(kept, key=lambda each: each.at)  # where times are missing: requests first, as they were
    record.size_bytes += sum(len(each.data) + MESSAGE_BYTES for each in kept) + sum(map(len, record.texts.values()))
    record.left_out = int(fields.get("messagesLeftOut", 0))
    record.requests, record.responses = (len(record.of(direction)) for direction in _DIRECTIONS.values())
    record.schema = None if fields.get("schema") is None else _text(fields["schema"])
    record.altered = tuple(_altered(each) for each in fields.get("mutations") or ())
    if fields.get("sameInFlight"):
        record.herd = Herd(0)
        record.herd.calls = int(fields["sameInFlight"]) + 1
    record.ended = Ended(
        call=0,
        at=_seconds(fields, "durationMs"),
        ending=Ending(fields.get("ending", Ending.TRAILERS.value)),
        status=status,
        message=_text(fields.get("grpcMessage") or fields.get("error") or ""),
        trailers=_headers(fields.get("trailers")),
        http_status=_code(fields, "httpStatus"),
        reset_code=_code(fields, "resetCode"),
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


def _message(message: Message, record: Record) -> str:
    _, at, direction, position, compressed, data, size = message
    at_s = at - record.started.at
    text = record.texts.get((direction, position)) if record.texts else None
    if text is not None:
        return f'{{"index":{position},"json":{quoted(text)},"raw":"","atMs":{at_s * 1e3:.3f}}}'
    raw = binascii.b2a_base64(_prefix(compressed, size) + data, newline=False).decode("ascii")
    cut = ',"cut":true' if len(data) < size else ""
    return f'{{"index":{position},"json":"","raw":"{raw}","atMs":{at_s * 1e3:.3f}{cut}}}'


def _kept(fields: Mapping[str, Any], number: int, direction: Direction) -> Message:
    raw = base64.b64decode(fields.get("raw") or b"", validate=True)
    if len(raw) < 5:
        raw = b"\0\0\0\0\0"
    size = int.from_bytes(raw[1:5], "big")
    at_s = _seconds(fields, "atMs")
    position = int(fields.get("index", number))
    return Message(0, at_s, direction, position, bool(raw[0] & 1), raw[5 : 5 + size], size)


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


def _text(value: object) -> str:
    """Without halves of surrogate pairs, which JSON can tell of and no UTF-8 can."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    """Of milliseconds, none where they are missing."""
    milliseconds = float(fields.get(name, 0.0))
    if not 0 <= milliseconds < math.inf:
        raise ValueError(f"{name} is no length of time")
    return milliseconds / 1e3


def _code(fields: Mapping[str, Any], name: str) -> int | None:
    return None if fields.get(name) is None else int(fields[name])


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


_UNALTERED: Final = '"mutated":false,"mutations":[]'


def _altered_text(record: Record) -> str:
    return f'"mutated":{boolean(record.is_mutated)},"mutations":{json.dumps(mutations(record))}'


@Memo
def _pairs(headers: Headers) -> str:
    pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]
    return json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))


def _headers(pairs: Sequence[Sequence[str]] | None) -> Headers:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs or ())
