"""The newest calls, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from app.loom.recording.record import BASE_BYTES, Record

MAX_RECORDS: Final = 500
MAX_BYTES: Final = 64 << 20
MAX_OLDER: Final = 9_500
"""Records that have gone from the list and are still looked through, as far as the bytes allow."""


class Ring:
    """At most so many records and bytes, by estimate; the oldest goes first, those that have ended before others.

    Where live calls alone fill it, the oldest of them lose their messages. What goes because there are too many is not
    listed any more, but held, to be searched and looked at, for as long as there is room for its bytes.
    """

    def __init__(self, *, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._older: OrderedDict[str, Record] = OrderedDict()
        self._bytes = 0
        self.evicted = 0
        """Records that had to go from the list."""

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size_bytes(self) -> int:
        """Of all that is held."""
        return self._bytes

    @property
    def older(self) -> int:
        """Records that are held, and not listed."""
        return len(self._older)

    def get(self, record_id: str) -> Record | None:
        return self._records.get(record_id) or self._older.get(record_id)

    def newest_first(self) -> list[Record]:
        return list(reversed(self._records.values()))

    def held(self) -> Iterator[Record]:
        """All, listed or not, the newest first. To be used up before anything changes."""
        return chain(reversed(self._records.values()), reversed(self._older.values()))

    def restore(self, records: Iterable[Record]) -> None:
        """Earlier ones, oldest first, such as a session file's. What has no room is not counted: it has its file."""
        before = self.evicted
        for record in records:
            self.add(record)
        self.evicted = before

    def add(self, record: Record) -> None:
        self._records[record.id] = record
        self._bytes += record.size_bytes
        if len(self._records) > self._max_records or self._bytes > self._max_bytes:
            self._make_room()

    def grow(self, record: Record, size: int) -> None:
        """The record holds so many bytes more, or less. A live one that has gone keeps no messages."""
        record.size_bytes += size
        if record.id in self._records or record.id in self._older:
            self._bytes += size
            if self._bytes > self._max_bytes:
                self._make_room()
        elif record.ended is None:
            _strip(record)  # nobody counts its bytes any more, so it has none

    def clear(self) -> None:
        """Forget those that have ended."""
        for records in (self._records, self._older):
            for record in [each for each in records.values() if not each.is_live]:
                del records[record.id]
                self._bytes -= record.size_bytes

    def _make_room(self) -> None:
        records = self._records
        while len(records) > self._max_records:
            gone = next(iter(records.values()))
            if gone.ended is None:
                gone = self._oldest_ended() or gone
            del records[gone.id]
            self._older[gone.id] = gone
            self.evicted += 1
        while self._older and (len(self._older) > MAX_OLDER or self._bytes > self._max_bytes):
            self._forget_oldest()
        while self._bytes > self._max_bytes:
            ended = self._oldest_ended()
            if ended is not None:
                del records[ended.id]
                self._bytes -= ended.size_bytes
                self.evicted += 1
            elif not self._strip_oldest():
                return

    def _forget_oldest(self) -> None:
        _, gone = self._older.popitem(last=False)
        self._bytes -= gone.size_bytes
        if gone.ended is None:
            _strip(gone)

    def _oldest_ended(self) -> Record | None:
        for record in self._records.values():
            if record.ended is not None:
                return record
        return None

    def _strip_oldest(self) -> bool:
        """Whether there was a live call with messages to lose."""
        for record in self._records.values():
            if record.messages:
                self._bytes -= record.size_bytes - BASE_BYTES
                _strip(record)
                return True
        return False


def _strip(record: Record) -> None:
    """Of a live call, no messages are kept."""
    record.left_out += len(record.messages)
    record.messages.clear()
    record.size_bytes = BASE_BYTES
