"""What is looked for in the messages and the metadata of recorded calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from app.concurrency.clock import Clock, monotonic
from app.loom.decoding import read
from app.loom.recording.record import Record
from app.loom.schema.schema import Schema

MAX_CHARACTERS: Final = 200
BATCH: Final = 20
"""Calls that are looked through before others have their turn."""
SECONDS: Final = 5.0
"""What one search may take."""
MAX_BYTES: Final = 4 << 20
"""Of one call's messages, those that came first."""


class Wanted(NamedTuple):
    """Both must be there, in any case; an empty one always is."""

    body: str
    """Of a message, as it is shown."""
    metadata: str
    """Of a line `name: value` of metadata, either way, or of trailers."""

    @classmethod
    def of(cls, body: str, metadata: str) -> Wanted:
        """Raises `ValueError`."""
        if not (body or metadata) or max(len(body), len(metadata)) > MAX_CHARACTERS:
            raise ValueError(f"'body' or 'metadata' is wanted, of {MAX_CHARACTERS} characters at most")
        return cls(body.casefold(), metadata.casefold())

    def is_in(self, record: Record, schema: Schema | None) -> bool:
        """Whether both are."""
        return self._is_in_metadata(record) and (not self.body or any(map(self._has_body, _texts(record, schema))))

    def _has_body(self, text: str) -> bool:
        return self.body in text.casefold()

    def _is_in_metadata(self, record: Record) -> bool:
        if not self.metadata:
            return True
        headers = (*record.headers, *record.response_headers, *(record.ended.trailers if record.ended else ()))
        lines = (f"{name.decode('latin-1')}: {value.decode('utf-8', 'replace')}" for name, value in headers)
        return any(self.metadata in line.casefold() for line in lines)


class Search:
    """One search, batch by batch; it has `SECONDS` from its making on."""

    def __init__(self, wanted: Wanted, clock: Clock = monotonic) -> None:
        self.ids: list[str] = []
        """Of those that were found."""
        self.last: Record | None = None
        """The last one that was looked through."""
        self._wanted = wanted
        self._clock = clock
        self._ends_at = clock() + SECONDS

    def look_through(self, batch: Sequence[tuple[Record, Schema | None]]) -> bool:
        """Some more. Whether there is time for others. Takes its time, and may be called in any thread."""
        for record, schema in batch:
            if self._clock() >= self._ends_at:
                return False
            if self._wanted.is_in(record, schema):
                self.ids.append(record.id)
            self.last = record
        return True


def changed_since(records: Iterable[Record], wall: float) -> list[Record]:
    """Those that began, went on or ended since then."""
    return [each for each in records if each.is_live or each.started.wall + (each.duration_s or 0.0) >= wall]


def _texts(record: Record, schema: Schema | None) -> Iterable[str]:
    left = MAX_BYTES
    for kept in list(record.messages):
        left -= len(kept.data)
        if left < 0:
            return
        yield json.dumps(read(record, kept, schema).as_json(), ensure_ascii=False)
