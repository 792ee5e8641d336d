"""The least possible number of loads, counted as reads come in."""

from __future__ import annotations

from collections import OrderedDict

from app.concurrency.clock import Clock, monotonic


class LeastLoads:
    """Tells for each read whether a perfect cache would have had to load for it.

    Greedy, key by key: the first read needs a load, which covers the reads of the next `ttl_s` seconds; the first one
    after those needs the next. Windows are kept for at most `max_keys` keys, the oldest going first, so that the count
    is an upper bound where more keys than that are read within one TTL.
    """

    def __init__(self, ttl_s: float, *, max_keys: int = 100_000, clock: Clock = monotonic) -> None:
        self._ttl_s = ttl_s
        self._max_keys = max_keys
        self._clock = clock
        self._window_ends: OrderedDict[str, float] = OrderedDict()

    def is_needed(self, key: str) -> bool:
        """Whether the read of `key` that comes now is the first of a window."""
        now = self._clock()
        end = self._window_ends.get(key)
        if end is not None and now < end:
            return False
        if end is None and len(self._window_ends) >= self._max_keys:
            self._window_ends.popitem(last=False)
        self._window_ends[key] = now + self._ttl_s
        self._window_ends.move_to_end(key)  # so that the order of the map stays the order of the windows
        return True

    def forget(self, key: str) -> None:
        """The window of `key` ends."""
        self._window_ends.pop(key, None)

    def clear(self) -> None:
        """All windows end: a perfect cache would have to load now, too."""
        self._window_ends.clear()
