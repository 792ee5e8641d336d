"""The L1 tier: entries in this process, bounded by number and by bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from app.cache.entry import Entry

OVERHEAD_BYTES = 1_100
"""What an entry takes besides its payload: its objects, its ready-made headers, its place in the map."""


class Slot:
    """An entry in the map. `expires_at` is the end of its life; `wire` is room for what a server made ready of it."""

    __slots__ = ("created_at", "entry", "expires_at", "payload", "version", "wire")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.payload = entry.payload or b""
        self.version = entry.version
        self.created_at = entry.created_at
        self.expires_at = entry.created_at + entry.ttl_s
        self.wire: object = None


class MemoryCache:
    """Slots by key; the least recently read go first when there are too many or they are too large together.

    Knows nothing of time: expired entries stay until they are replaced or pushed out, for when nothing better is to be
    had.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def size_bytes(self) -> int:
        """What the entries take, by estimate."""
        return self._bytes

    def get(self, key: str) -> Slot | None:
        """The slot of `key`, which is now the most recently read."""
        slot = self._slots.get(key)
        if slot is not None:
            self._slots.move_to_end(key)
        return slot

    def put(self, key: str, entry: Entry) -> bool:
        """Keep `entry`, unless what is there is newer or it is too large to keep. Whether it is kept."""
        present = self._slots.get(key)
        if present is not None and _age_rank(present.entry) > _age_rank(entry):
            return False
        size = _size(entry)
        if size > self._max_bytes:
            self.drop(key)
            return False
        if present is not None:
            self._bytes -= _size(present.entry)
        self._slots[key] = Slot(entry)
        self._slots.move_to_end(key)
        self._bytes += size
        while len(self._slots) > self._max_entries or self._bytes > self._max_bytes:
            _, pushed_out = self._slots.popitem(last=False)
            self._bytes -= _size(pushed_out.entry)
        return True

    def drop(self, key: str) -> None:
        """Forget `key`."""
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._bytes -= _size(slot.entry)

    def drop_older(self, key: str, version: int) -> bool:
        """Forget `key` if what is there is below `version`. Whether it was."""
        slot = self._slots.get(key)
        if slot is None or slot.entry.version >= version:
            return False
        self.drop(key)
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self._bytes = 0

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """All entries, the most recently read first, as they are at the call."""
        return iter([(key, slot.entry) for key, slot in reversed(self._slots.items())])


def _size(entry: Entry) -> int:
    return OVERHEAD_BYTES + (0 if entry.payload is None else len(entry.payload))


def _age_rank(entry: Entry) -> tuple[int, float]:
    return entry.version, entry.created_at
