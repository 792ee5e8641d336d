"""Calls made again from the page, edited or not, and shown beside their originals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

from app.loom import tunnel
from app.loom.call import Direction, Message
from app.loom.comparison import compare
from app.loom.decoding import Decoder, with_bytes
from app.loom.inspector.views import Views
from app.loom.proxy.upstream import Upstream
from app.loom.recording.record import Record
from app.loom.replay import ReplayError, replay
from app.loom.schema.cache import SchemaCache
from app.loom.schema.errors import TranscodeError
from app.loom.schema.schema import Schema
from app.loom.schema.transcoder import from_json

MAX_AT_ONCE: Final = 4


class Replays:
    """Makes calls again at the backend, past the proxy: a replay is no call of its clients, and is not recorded."""

    def __init__(self, upstream: Upstream, views: Views, schemas: SchemaCache) -> None:
        self._upstream = upstream
        self._views = views
        self._schemas = schemas
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def __call__(self, record: Record, edit: Any) -> Mapping[str, Any]:
        """`edit` is `None`, or an object that may have `messages`, the requests as JSON, and `metadata`, values by name
        that replace the recorded ones: what was redacted must be in it. Raises `ValueError` for what does not fit.
        """
        messages, metadata = _read(edit)
        schema = self._views.schema(record)
        asked = record if messages is None else _edited(record, messages, schema)
        with contextlib.suppress(TranscodeError):  # `replay` says so where it needs them
            asked = with_bytes(asked, schema)
        async with self._room:
            try:
                async with tunnel.blocking_channel(self._upstream) as channel:
                    again = await replay(channel, asked, metadata)
            except ReplayError as error:
                raise ValueError(str(error)) from error
        again.schema = None if schema is None else schema.hash
        return await asyncio.to_thread(self._beside, record, again, schema)

    def _beside(self, record: Record, again: Record, schema: Schema | None) -> Mapping[str, Any]:
        compared = compare(record, again, Decoder(self._schemas.by_hash, schema))
        return {
            "original": self._views.detail(record, schema),
            "replay": self._views.detail(again, schema),
            "sameStatus": compared.same_status,
            "sameBody": compared.same_body,
            "differences": [each._asdict() for each in compared.differences],
        }


def _read(edit: Any) -> tuple[list[Any] | None, dict[str, str]]:
    if edit is None:
        return None, {}
    if not isinstance(edit, dict) or not edit.keys() <= {"messages", "metadata"}:
        raise ValueError("an edit is an object with 'messages', 'metadata' or both")
    messages, metadata = edit.get("messages"), edit.get("metadata") or {}
    if messages is not None and not isinstance(messages, list):
        raise ValueError("messages: a list is wanted, of each request as JSON")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata: an object is wanted, of texts by name")
    return messages, {name.lower(): value for name, value in metadata.items()}


def _edited(record: Record, messages: list[Any], schema: Schema | None) -> Record:
    method = None if schema is None else schema.method(record.started.method)
    if schema is None or method is None:
        raise ValueError("the method's types are not known, so its messages can't be edited")
    edited = Record(record.id, record.started, record.headers)
    edited.ended = record.ended
    for position, message in enumerate(messages):
        try:
            data = from_json(message, method.input, schema)
        except TranscodeError as error:
            raise ValueError(f"request {position}: {error}") from error
        edited.messages.append(
            Message(0, edited.started.at, Direction.REQUEST, position, compressed=False, data=data, size=len(data))
        )
    edited.requests = len(messages)
    return edited
