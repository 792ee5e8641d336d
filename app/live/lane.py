"""One caller of one key: when it came, what it waited on, when it left."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple

from app.concurrency.clock import Clock

On = Literal["l1", "l2", "flight", "lock", "lease", "load"]
End = Literal["hit", "loaded", "shared", "stale", "failed", "left"]
ENDS: Final[dict[str, End]] = {"l1": "hit", "l2": "hit", "origin": "loaded", "shared": "shared", "stale": "stale"}
"""By where the answer came from."""
MAX_WAITS: Final = 50
"""Of a caller that is woken again and again, no more are kept."""


class Wait(NamedTuple):
    """By the lane's clock, in seconds."""

    on: On
    since: float
    until: float


class Lane:
    """Written while its caller waits, also by the flight that works for it; once the caller has left nothing more."""

    __slots__ = ("_on", "_since", "_timer", "came", "end", "has_loaded", "key", "left", "number", "waits")

    def __init__(self, key: str, number: int, timer: Clock) -> None:
        self.key = key
        self.number = number
        self._timer = timer
        self.came = timer()
        self.left: float | None = None
        self.end: End = "left"
        self.waits: list[Wait] = []
        self.has_loaded = False
        self._on: On | None = None
        self._since = 0.0

    def begin(self, on: On) -> None:
        """It waits on this from now on, and on nothing else any more."""
        if self.left is None:
            now = self._timer()
            self._close(now)
            self._on, self._since = on, now

    def begin_load(self) -> None:
        """It loads, for itself and for who waits with it."""
        self.begin("load")
        self.has_loaded = self.left is None

    def done(self) -> None:
        """It has what it waited for."""
        if self.left is None:
            self._close(self._timer())

    def abandon(self) -> None:
        """It did not have to wait on what it seemed to."""
        self._on = None

    def leave(self, end: End) -> None:
        """It has its answer, or has gone without."""
        now = self._timer()
        self._close(now)
        self.left, self.end = now, end
        if not self.waits:
            # What L1 held, it had at once; otherwise another caller's work brought it the answer.
            self.waits.append(Wait("l1" if end in ("hit", "stale") else "flight", self.came, now))

    def fields(self, origin: float) -> dict[str, Any]:
        """As the page gets it, in milliseconds since `origin`. It must have left."""
        left = self.came if self.left is None else self.left
        return {
            "n": self.number,
            "came_ms": _ms(self.came - origin),
            "left_ms": _ms(left - origin),
            "waits": [
                {"on": wait.on, "from_ms": _ms(wait.since - origin), "to_ms": _ms(wait.until - origin)}
                for wait in self.waits
            ],
            "end": self.end,
        }

    def _close(self, now: float) -> None:
        if self._on is not None:
            if len(self.waits) < MAX_WAITS:
                self.waits.append(Wait(self._on, self._since, now))
            self._on = None


current_lane: ContextVar[Lane | None] = ContextVar("current_lane", default=None)
"""The lane of the caller for whom the running code works: a flight's is that of who started it."""


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)
