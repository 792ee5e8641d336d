"""Identical calls that are in flight together: a stampede, as it looks from outside."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from app.loom.recording.record import Herd, Record

MAX_HERDS: Final = 10_000
"""Most different requests that are watched at a time; those past it are not compared."""
MAX_COMPARED_BYTES: Final = 4096
"""A larger request is known by its SHA-256, so that a herd keeps none of it in memory."""


class Duplicates:
    """Groups calls by method and request bytes for as long as one of them is in flight.

    Only calls of exactly one request message can be compared.
    """

    def __init__(self, on_duplicate: Callable[[str], None] = lambda _method: None) -> None:
        """`on_duplicate` is called with the method for each call that finds an identical one in flight."""
        self._on_duplicate = on_duplicate
        self._herds: dict[tuple[str, bytes], Herd] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._herds)

    def asked(self, record: Record) -> None:
        """Its request is complete. To be told once."""
        first = record.messages[0] if record.requests == 1 and record.messages else None
        if first is None or first.size != len(first.data):
            return
        data = first.data
        asked = (record.started.method, data if len(data) <= MAX_COMPARED_BYTES else sha256(data).digest())
        herd = self._herds.get(asked)
        if herd is None:
            if len(self._herds) >= MAX_HERDS:
                return
            herd = self._herds[asked] = Herd(next(self._numbers), asked)
        else:
            self._on_duplicate(record.started.method)
        herd.calls += 1
        herd.in_flight += 1
        record.herd = herd

    def ended(self, record: Record) -> None:
        """It is in flight no more. To be told once."""
        herd = record.herd
        if herd is None:
            return
        herd.in_flight -= 1
        herd.seconds += record.duration_s or 0.0
        if not herd.in_flight:
            del self._herds[herd.asked]
