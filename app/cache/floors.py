"""What is known to be past: the least version of each key that may still be stored or served."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from app.concurrency.clock import Clock, monotonic


class _Floor(NamedTuple):
    version: int
    ends_at: float
    """By the injected clock."""
    raised_at: float
    """Wall-clock time."""


class Floors:
    """Least versions by key, each kept for `life_s` seconds, which must outlast any load and any remote entry's life.

    At most `max_keys` are kept. One that must go before its time, the oldest, takes along the permission to use
    anything loaded before it was raised: that is the time floor, in wall-clock seconds, which holds for all keys and
    lives as long as what it stands for. `skew_s` is how far apart the replicas' clocks may be.
    """

    def __init__(self, *, max_keys: int, life_s: float, skew_s: float, clock: Clock = monotonic) -> None:
        self._max_keys = max_keys
        self._life_s = life_s
        self._skew_s = skew_s
        self._clock = clock
        self._floors: OrderedDict[str, _Floor] = OrderedDict()  # in the order of their ends
        self._loaded_after = 0.0
        self._time_floor_ends_at = 0.0

    def __len__(self) -> int:
        return len(self._floors)

    @property
    def loaded_after(self) -> float:
        """The time floor: only what was loaded after this moment may be used. 0 where there is none."""
        if self._loaded_after and self._clock() >= self._time_floor_ends_at:
            self._loaded_after = 0.0
        return self._loaded_after

    def least_version(self, key: str) -> int:
        """The floor of `key`; 0 where none is known."""
        floor = self._floors.get(key)
        return 0 if floor is None else floor.version

    def allows(self, key: str, version: int, created_at: float) -> bool:
        """Whether a value of `key` may be stored or served."""
        return version >= self.least_version(key) and created_at > self.loaded_after

    def raise_to(self, key: str, version: int, now: float) -> None:
        """Nothing of `key` below `version` may be used any more. `now` is wall-clock time."""
        self.raise_each([(key, version)], now)

    def raise_each(self, versions: Iterable[tuple[str, int]], now: float) -> None:
        """As `raise_to` for each key and version. Keys that are new at one version share what is kept of them: an
        import may announce 100,000."""
        clock = self._clock()
        ends_at = clock + self._life_s
        fresh: dict[int, _Floor] = {}
        for key, version in versions:
            before = self._floors.get(key)
            if before is None:
                floor = fresh.get(version)
                if floor is None:
                    floor = fresh[version] = _Floor(version, ends_at, now)
            else:  # the later moment stands, though the wall clock may have been set back since
                floor = _Floor(max(version, before.version), ends_at, max(now, before.raised_at))
            self._floors[key] = floor
            self._floors.move_to_end(key)
        while self._floors:
            oldest = next(iter(self._floors.values()))
            if oldest.ends_at > clock:
                if len(self._floors) <= self._max_keys:
                    break
                self._raise_time_floor(oldest.raised_at, oldest.ends_at)
            self._floors.popitem(last=False)

    def raise_all(self, now: float) -> None:
        """Nothing loaded until now may be used any more. `now` is wall-clock time."""
        self._raise_time_floor(now, self._clock() + self._life_s)

    def _raise_time_floor(self, moment: float, ends_at: float) -> None:
        self._loaded_after = max(self.loaded_after, moment + self._skew_s)
        self._time_floor_ends_at = max(self._time_floor_ends_at, ends_at)
