"""Token buckets: how often each of many keys may do something."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class TokenBuckets:
    """A bucket a key, full at first: each `take` empties it by one, and `rate_per_s` a second fill it up to `burst`.

    At most `max_keys` are remembered; the least recently used is forgotten first, and so is full when it comes again.
    """

    def __init__(
        self, *, rate_per_s: float, burst: int, max_keys: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        if rate_per_s <= 0 or burst < 1 or max_keys < 1:
            raise ValueError("rate_per_s must be above 0, burst and max_keys at least 1")
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._max_keys = max_keys
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str) -> float:
        """Take one of the key's tokens. Returns 0, or where there is none the seconds until there will be.

        Who is refused has taken nothing.
        """
        now = self._now()
        tokens, since = self._buckets.get(key, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + max(0.0, now - since) * self._rate_per_s)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate_per_s
        self._buckets[key] = (tokens if wait_s else tokens - 1.0, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return wait_s
