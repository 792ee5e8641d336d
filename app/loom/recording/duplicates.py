"""Identical calls that are in flight together: a stampede, as it looks from outside."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from app.loom.recording.record import Herd, Record

MAX_HERDS: Final = 10_000
"""Most different requests that are watched at a time; those past it are not compared."""


class Duplicates:
    """Groups calls by method and request bytes for as long as one of them is in flight.

    Only calls of exactly one request message can be compared.
    """

    def __init__(self, on_duplicate: Callable[[str], None] = lambda _method: None) -> None:
        """`on_duplicate` is called with the method for each call that finds an identical one in flight."""
        self._on_duplicate = on_duplicate
        self._herds: dict[tuple[str, bytes], Herd] = {}
        self._keys: dict[str, tuple[str, bytes]] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._herds)

    def asked(self, record: Record) -> None:
        """Its request is complete."""
        first = record.messages[0] if record.requests == 1 and record.messages else None
        if first is None or first.size != len(first.data) or record.id in self._keys:
            return
        key = (record.started.method, first.data)
        herd = self._herds.get(key)
        if herd is None:
            if len(self._herds) >= MAX_HERDS:
                return
            herd = self._herds[key] = Herd(next(self._numbers))
        else:
            self._on_duplicate(record.started.method)
        herd.calls += 1
        herd.in_flight += 1
        record.herd = herd
        self._keys[record.id] = key

    def ended(self, record: Record) -> None:
        """It is in flight no more."""
        key = self._keys.pop(record.id, None)
        if key is None or record.herd is None:
            return
        herd = record.herd
        herd.in_flight -= 1
        herd.seconds += record.duration_s or 0.0
        if not herd.in_flight:
            del self._herds[key]
