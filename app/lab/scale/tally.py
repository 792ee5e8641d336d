"""What happens in the fleet, counted."""

from __future__ import annotations

from collections import Counter

from app.cache.events import LeaseEnd, Operation, Refusal, Source, StaleCause, Tier


class Tally:
    """The whole fleet's events. Implements `app.cache.events.CacheEvents`; what L1 answers is in `from_l1`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.from_l1 = 0

    def hit(self, tier: Tier) -> None:
        """Seen by where reads are answered from."""

    def miss(self) -> None:
        """As `hit`."""

    def answered(self, source: Source) -> None:
        if source == "l1":
            self.from_l1 += 1
        else:
            self.counts[source] += 1

    def shared(self) -> None:
        """As `hit`."""

    def least_load(self) -> None:
        """Each replica's own, as if it were alone; the fleet's is `FleetLeast`'s."""

    def failed(self, operation: Operation) -> None:
        self.counts[f"redis failed: {operation}"] += 1

    def stale(self, cause: StaleCause) -> None:
        self.counts[f"stale: {cause}"] += 1

    def early_refresh(self) -> None:
        self.counts["early refresh"] += 1

    def lease(self, end: LeaseEnd) -> None:
        self.counts[f"lease: {end}"] += 1

    def refused(self, why: Refusal) -> None:
        self.counts[f"refused: {why}"] += 1

    def invalidated(self, count: int) -> None:
        self.counts["invalidated"] += count

    def coherent(self, up: bool) -> None:
        """The feed of changes is never lost here."""

    def wakeups(self, up: bool) -> None:
        if not up:
            self.counts["subscriptions lost"] += 1
