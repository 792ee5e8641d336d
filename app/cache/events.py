"""What happens on the read path, told to whoever counts it. The cache itself knows no metrics library."""

from __future__ import annotations

from typing import Literal, Protocol

Tier = Literal["l1", "l2"]
Source = Literal["l1", "l2", "origin", "shared", "stale"]
Operation = Literal["get", "take", "put", "release", "invalidate", "decode"]
LeaseEnd = Literal["won", "waited", "taken_over", "fenced"]
StaleCause = Literal["grace", "error", "slow"]
Refusal = Literal["full", "timeout"]


class CacheEvents(Protocol):
    """Called on the event loop, in line with the read: must be quick and must not raise."""

    def hit(self, tier: Tier) -> None:
        """A look into a tier found a fresh value."""

    def miss(self) -> None:
        """A look into the last tier found nothing fresh."""

    def answered(self, source: Source) -> None:
        """A read was answered, and from where."""

    def shared(self) -> None:
        """A caller got the outcome of another caller's flight."""

    def least_load(self) -> None:
        """A read came for which even a perfect cache would have had to load."""

    def failed(self, operation: Operation) -> None:
        """An operation on the remote cache failed, or what it read was corrupt; the read went on without it."""

    def stale(self, cause: StaleCause) -> None:
        """A value past its life was served: within its grace, or because the load failed, or because it was slow."""

    def early_refresh(self) -> None:
        """A value was loaded anew before its life ended."""

    def lease(self, end: LeaseEnd) -> None:
        """The lease on a key was won, waited for, won after another's ran out, or found lost at the put."""

    def refused(self, why: Refusal) -> None:
        """The bulkhead refused a load."""

    def invalidated(self, count: int) -> None:
        """The origin announced so many changed keys."""

    def coherent(self, up: bool) -> None:
        """Whether changes at the origin are being announced."""

    def wakeups(self, up: bool) -> None:
        """Whether the wake-up subscription is up."""
