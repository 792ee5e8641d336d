"""Whether what this process holds is known to be what the origin has."""

from __future__ import annotations

from collections.abc import Iterable

from app.cache.entry import Entry
from app.cache.freshness import distrusted_at
from app.concurrency.clock import Clock, monotonic


class Coherence:
    """The state of the origin's announcements, as they bear on trust.

    Announced, a value is trusted for its whole life. Without announcements for longer than `grace_s` it is *unknown*:
    trusted for `grace_s` from its load, and then to be loaded again. With `expected` false nothing announces changes at
    all, and a value's life is the only bound.
    """

    def __init__(self, *, expected: bool, grace_s: float, clock: Clock = monotonic) -> None:
        self._expected = expected
        self._grace_s = grace_s
        self._clock = clock
        self._lost_at: float | None = clock() if expected else None

    @property
    def is_expected(self) -> bool:
        """Whether the origin announces changes at all."""
        return self._expected

    @property
    def is_up(self) -> bool:
        """Whether changes are being announced, or none are expected to be."""
        return self._lost_at is None

    def lost(self) -> None:
        """From now on changes may be missed. Said again during a loss, it changes nothing: that began when it began."""
        if self._expected and self._lost_at is None:
            self._lost_at = self._clock()

    def regained(self) -> None:
        """All changes up to now have been told."""
        self._lost_at = None

    def trusted_for_s(self) -> float | None:
        """For how long after its load a value is trusted; `None` for as long as it lives."""
        if self._lost_at is None or self._clock() - self._lost_at <= self._grace_s:
            return None
        return self._grace_s

    def trusted(self, entries: Iterable[tuple[str, Entry]], now: float) -> list[tuple[str, Entry]]:
        """Those that may be served at wall-clock time `now`: neither past their life nor unknown."""
        trusted_for_s = self.trusted_for_s()
        return [
            (key, entry)
            for key, entry in entries
            if entry.is_fresh(now) and now < distrusted_at(entry.created_at, trusted_for_s)
        ]
