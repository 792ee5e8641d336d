"""Rows as text, for all who watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.loom.recording.record import Record

MAX_TEXTS: Final = 2_000
"""Rows that are kept for the next who watches, who gets them within a batch's time."""


class SharedRows:
    """The row of a call that has ended, which does not change any more, is made once for all."""

    def __init__(self, make: Callable[[Record], str]) -> None:
        self._make = make
        self._texts: dict[str, str] = {}

    def text(self, record: Record) -> str:
        """One record's."""
        if record.ended is None:
            return self._make(record)
        text = self._texts.get(record.id)
        if text is None:
            if len(self._texts) >= MAX_TEXTS:
                self._texts.clear()
            text = self._texts[record.id] = self._make(record)
        return text
