"""Records as JSON: a row for the list, and all of a call for its page."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.loom.call import Direction, Headers, Message, StreamKind, binary_value, first_value
from app.loom.decoding import declared_kind, read
from app.loom.grpcurl import Target, command
from app.loom.recording.jsontext import boolean, quoted, timestamp_ms
from app.loom.recording.lines import mutations
from app.loom.recording.record import Record
from app.loom.replay import secrets_of
from app.loom.schema.cache import SchemaCache
from app.loom.schema.errors import TranscodeError
from app.loom.schema.schema import Schema
from app.loom.schema.transcoder import status_details

MAX_SHOWN_BYTES: Final = 4 << 20
"""Of one call's messages, decoded for its page; what is past it is shown by its size alone."""
MAX_RAW_BYTES: Final = 64 << 10
"""Of one message, as hexadecimal digits."""


class Views:
    """What records look like to those who ask."""

    def __init__(self, schemas: SchemaCache, target: Target) -> None:
        """`target` is where a grpcurl command calls."""
        self._schemas = schemas
        self._target = target

    def schema(self, record: Record) -> Schema | None:
        """The one that it was recorded under, else what is known now. To be asked on the event loop."""
        if record.schema is not None:
            return self._schemas.by_hash(record.schema)
        return self._schemas.current()

    def row(self, record: Record) -> dict[str, Any]:
        """What the list shows. Costs little: nothing is decoded."""
        row: dict[str, Any] = json.loads(self.row_text(record))
        return row

    def row_text(self, record: Record) -> str:
        """The same as JSON, written out: whoever watches gets one for each call."""
        started, ended, herd = record.started, record.ended, record.herd
        end = '"statusName":null,"durationMs":null'
        if ended is not None:
            status = "UNSEEN" if ended.status is None else ended.status._name_
            took_ms = f"{(ended.at - started.at) * 1e3:.3f}"
            end = f'"statusName":"{status}","durationMs":{took_ms},"grpcMessage":{quoted(ended.message)}'
        if herd is not None and herd.calls > 1:
            end += f',"duplicates":{{"herd":{herd.number},"calls":{herd.calls},"totalMs":{herd.seconds * 1e3:.3f}}}'
        return (
            f'{{"id":{quoted(record.id)},"timestamp":"{timestamp_ms(started.wall)}",'
            f'"method":{quoted(started.method)},"streamKind":"{self._kind(record)._value_}",'
            f'"peer":{quoted(started.peer)},"live":{boolean(ended is None)},'
            f'"mutated":{boolean(record.is_mutated) if record.altered else "false"},"requests":{record.requests},'
            f'"responses":{record.responses},{end}}}'
        )

    def detail(self, record: Record, schema: Schema | None) -> dict[str, Any]:
        """All of it, decoded. Takes its time, and may be made in any thread."""
        started, ended = record.started, record.ended
        messages, left = [], MAX_SHOWN_BYTES
        for kept in list(record.messages):
            left -= len(kept.data)
            messages.append(self._message(kept, record, schema, is_shown=left >= 0))
        detail = self.row(record) | {
            "authority": started.authority,
            "timeoutMs": None if started.timeout_s is None else round(started.timeout_s * 1e3, 3),
            "schema": None if schema is None else schema.hash,
            "isDecodedBySchema": schema is not None and schema.method(started.method) is not None,
            "messages": messages,
            "redacted": sorted(secrets_of(record)),
            "messagesLeftOut": record.left_out,
            "mutations": mutations(record),
            "metadata": _pairs(record.headers),
            "responseMetadata": _pairs(record.response_headers),
            "grpcurl": self._grpcurl(record, messages),
        }
        if ended is not None:
            detail |= {
                "statusCode": None if ended.status is None else ended.status.value,
                "ending": ended.ending.value,
                "trailers": _pairs(ended.trailers),
                "statusDetails": _details(ended.trailers, schema),
                "httpStatus": ended.http_status,
                "resetCode": ended.reset_code,
            }
        return detail

    def _kind(self, record: Record) -> StreamKind:
        schema = None if record.schema is None else self._schemas.by_hash(record.schema)
        return declared_kind(record, schema)

    def _message(self, kept: Message, record: Record, schema: Schema | None, *, is_shown: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "direction": kept.direction.value,
            "index": kept.position,
            "atMs": round(record.since_start_s(kept) * 1e3, 3),
            "size": kept.size,
            "compressed": kept.compressed,
        }
        if not is_shown:
            return shown | {"problem": f"not shown: over {MAX_SHOWN_BYTES >> 20} MiB of messages come before it"}
        shown["raw"] = kept.data[:MAX_RAW_BYTES].hex()
        reading = read(record, kept, schema)
        if len(kept.data) < kept.size:
            return shown | {"cut": True, "problem": reading.problem}
        return shown | {reading.form: reading.value} | ({"problem": reading.problem} if reading.problem else {})

    def _grpcurl(self, record: Record, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """`None` where a request can't be written as JSON."""
        requests = [message for message in messages if message["direction"] == Direction.REQUEST.value]
        if any("json" not in message for message in requests) or len(requests) < record.requests:
            return None
        bodies = [message["json"] for message in requests]
        started = record.started
        target = self._target.as_called(started.authority)
        return command(started.method, bodies, record.headers, target, started.timeout_s)


def _details(trailers: Headers, schema: Schema | None) -> Any:
    sent = first_value(trailers, b"grpc-status-details-bin")
    if not sent:
        return None
    try:
        return status_details(binary_value(sent), schema or Schema([]))
    except (TranscodeError, ValueError, binascii.Error):
        return {"problem": "no google.rpc.Status", "raw": sent.decode("latin-1")}


def _pairs(headers: Headers) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("utf-8", "backslashreplace")] for name, value in headers]
