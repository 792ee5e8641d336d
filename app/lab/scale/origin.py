"""The database that all replicas load from, and that announces its changes to each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Protocol

from app.cache.origin import Loaded
from app.lab.simulation.virtual_time import VirtualTimeLoop


class Listener(Protocol):
    def announced(self, key: str, version: int) -> float:
        """A change was committed; word of it is on its way, for so many seconds."""


class SimulatedOrigin:
    """Every key has a value. A load sees the value of its beginning; its time is lognormal, with `load_s` as median."""

    def __init__(
        self, loop: VirtualTimeLoop, random: Random, *, load_s: float, spread: float, payload_bytes: int
    ) -> None:
        self._loop = loop
        self._random = random
        self._load_s = load_s
        self._spread = spread
        self._payload_bytes = payload_bytes
        self.versions: dict[str, int] = {}
        """Of what was changed; that of all others is 1."""
        self.committed_at: dict[str, list[float]] = {}
        """When each version from the second on was committed."""
        self.listeners: dict[Listener, None] = {}
        self.loads: list[tuple[float, str]] = []
        """When each began, and of what."""
        self.most_at_once = 0
        """Loads of one key."""
        self.longest_announcement_s = 0.0
        self._under_way: Counter[str] = Counter()

    def version(self, key: str) -> int:
        return self.versions.get(key, 1)

    async def load(self, key: str) -> Loaded:
        self.loads.append((self._loop.time(), key))
        version = self.version(key)
        self._under_way[key] += 1
        self.most_at_once = max(self.most_at_once, self._under_way[key])
        try:
            await asyncio.sleep(self._load_s * self._random.lognormvariate(0.0, self._spread))
        finally:
            self._under_way[key] -= 1
        return Loaded(self.payload(key, version), version)

    def payload(self, key: str, version: int) -> bytes:
        return (b"%s %d " % (key.encode(), version)).ljust(self._payload_bytes, b".")

    def commit(self, key: str) -> int:
        """The new version, announced to all who listen."""
        version = self.versions[key] = self.version(key) + 1
        self.committed_at.setdefault(key, []).append(self._loop.time())
        for listener in self.listeners:
            self.longest_announcement_s = max(self.longest_announcement_s, listener.announced(key, version))
        return version

    def outdated_for_s(self, key: str, version: int, at: float) -> float:
        """How long before `at` it was that `version` of the key was replaced; 0 where it was not yet."""
        later = self.committed_at.get(key, ())
        return max(0.0, at - later[version - 1]) if len(later) >= version else 0.0
