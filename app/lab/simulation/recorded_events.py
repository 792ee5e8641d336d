"""What the read path tells those who count, written down."""

from __future__ import annotations

from collections import Counter

from app.cache.events import LeaseEnd, Operation, Refusal, Source, StaleCause, Tier


class RecordedEvents:
    """Implements `CacheEvents`; `counts` has a name for each kind, such as `hit l2` or `failed get`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def hit(self, tier: Tier) -> None:
        self.counts[f"hit {tier}"] += 1

    def miss(self) -> None:
        self.counts["miss"] += 1

    def answered(self, source: Source) -> None:
        self.counts[f"answered {source}"] += 1

    def shared(self) -> None:
        self.counts["shared"] += 1

    def least_load(self) -> None:
        self.counts["least load"] += 1

    def failed(self, operation: Operation) -> None:
        self.counts[f"failed {operation}"] += 1

    def stale(self, cause: StaleCause) -> None:
        self.counts[f"stale {cause}"] += 1

    def early_refresh(self) -> None:
        self.counts["early refresh"] += 1

    def lease(self, end: LeaseEnd) -> None:
        self.counts[f"lease {end}"] += 1

    def refused(self, why: Refusal) -> None:
        self.counts[f"refused {why}"] += 1

    def invalidated(self, count: int) -> None:
        self.counts["invalidated"] += count

    def coherent(self, up: bool) -> None:
        self.counts[f"coherent {up}"] += 1

    def wakeups(self, up: bool) -> None:
        self.counts[f"wakeups {up}"] += 1
