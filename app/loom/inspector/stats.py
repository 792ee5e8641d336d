"""How often each method was called since the start, how often it failed, and how long it took."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Final

from app.loom.call import Status
from app.loom.recording.record import Record

BOUNDS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Upper ends of the histogram's buckets, milliseconds; one more bucket has what took longer."""
MAX_METHODS: Final = 500
_OK: Final = Status.OK
OTHER: Final = "other"
"""The calls of methods that came when there was no room for more."""


@dataclass(slots=True)
class _Method:
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))
    statuses: dict[Status | None, int] = field(default_factory=dict)
    """`None` are calls that went out of sight."""


class Stats:
    """A sink of the recorder."""

    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}

    def finished(self, record: Record) -> None:
        ended = record.ended
        if ended is None:
            return
        duration_s = ended.at - record.started.at
        name = record.started.method
        method = self._methods.get(name)
        if method is None:
            method = self._methods.setdefault(name if len(self._methods) < MAX_METHODS else OTHER, _Method())
        status = ended.status
        method.calls += 1
        method.errors += status is not _OK
        method.seconds += duration_s
        method.buckets[bisect_left(BOUNDS_MS, duration_s * 1e3)] += 1
        method.statuses[status] = method.statuses.get(status, 0) + 1

    def document(self) -> dict[str, Any]:
        """By method, those with most calls first."""
        ordered = sorted(self._methods.items(), key=lambda item: -item[1].calls)
        return {
            "boundsMs": BOUNDS_MS,
            "methods": [
                {
                    "method": name,
                    "calls": each.calls,
                    "errors": each.errors,
                    "errorShare": round(each.errors / each.calls, 4),
                    "meanMs": round(each.seconds / each.calls * 1e3, 3),
                    "buckets": each.buckets,
                    "statuses": {
                        "UNSEEN" if status is None else status.name: count for status, count in each.statuses.items()
                    },
                }
                for name, each in ordered
            ],
        }
