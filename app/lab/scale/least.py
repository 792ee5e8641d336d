"""The least possible number of loads: those of one perfect cache in front of the database, which all reads go to."""

from __future__ import annotations


class FleetLeast:
    """Greedy, key by key, which is the least there is: a load is made for the first read that nothing covers.

    It covers the reads of the next `ttl_s` seconds, or those up to the next change that is made past the service: after
    that the value is another. A change that is made through the service brings its value along, which covers as much as
    a load does, and costs none.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._covered_until: dict[str, float] = {}

    def is_needed(self, key: str, now: float) -> bool:
        """Whether the read of `key` at `now` needs a load."""
        if now < self._covered_until.get(key, 0.0):
            return False
        self._covered_until[key] = now + self._ttl_s
        return True

    def written(self, key: str, now: float) -> None:
        """Changed through the service."""
        self._covered_until[key] = now + self._ttl_s

    def changed(self, key: str) -> None:
        """Changed past the service."""
        self._covered_until.pop(key, None)
