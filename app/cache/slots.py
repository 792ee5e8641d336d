"""Which node of a Redis Cluster has which keys, as one of its nodes tells it. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SLOTS = 16_384

Address = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots `first` to `last`, both included: the address of their primary, and those of its replicas."""

    first: int
    last: int
    primary: Address
    replicas: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotMap:
    """The cluster's shape. `epoch` is its clock: of two maps the one with the greater was made later."""

    epoch: int
    ranges: tuple[SlotRange, ...]
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", tuple(sorted(self.ranges, key=lambda each: each.first)))
        object.__setattr__(self, "_starts", tuple(each.first for each in self.ranges))

    @classmethod
    def parse(cls, slots: list[Any], info: bytes, asked: Address) -> SlotMap:
        """From the answers to CLUSTER SLOTS and CLUSTER INFO. Where they name no host it is that of the node asked.

        Raises `ValueError` where they are none.
        """
        try:
            lines = dict(line.split(":", 1) for line in info.decode().split("\r\n") if ":" in line)
            ranges = [
                SlotRange(
                    int(first), int(last), _address(primary, asked), tuple(_address(one, asked) for one in others)
                )
                for first, last, primary, *others in slots
            ]
            return cls(int(lines["cluster_current_epoch"]), tuple(ranges))
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"no map of a cluster: {error}") from error

    @property
    def is_complete(self) -> bool:
        """Whether every slot has a primary."""
        return sum(each.last - each.first + 1 for each in self.ranges) == SLOTS

    @property
    def primaries(self) -> frozenset[Address]:
        return frozenset(each.primary for each in self.ranges)

    @property
    def nodes(self) -> frozenset[Address]:
        """All of them, primaries and replicas."""
        return self.primaries | {replica for each in self.ranges for replica in each.replicas}

    def primary(self, slot: int) -> Address | None:
        """The node that has the slot; `None` where none has."""
        index = bisect_right(self._starts, slot) - 1
        if index < 0 or self.ranges[index].last < slot:
            return None
        return self.ranges[index].primary

    def moved_from(self, other: SlotMap) -> bool:
        """Whether some slot has another primary here than there."""
        mine = [(each.first, each.last, each.primary) for each in self.ranges]
        return mine != [(each.first, each.last, each.primary) for each in other.ranges]


def newest(told: Sequence[SlotMap | None], known: SlotMap | None) -> SlotMap | None:
    """The map to go by, of what the nodes that were asked told (`None`: nothing) and what was known before.

    The one of the latest epoch, and of those the one that most agree on. A map older than the known one is what a node
    says that was cut off: it counts only where most of those that were asked say it, as after a cluster was made anew.
    """
    maps = [each for each in told if each is not None and each.ranges]
    if (
        known is not None
        and max((each.epoch for each in maps), default=-1) < known.epoch
        and 2 * len(maps) <= len(told)
    ):
        return known
    if not maps:
        return known
    latest = max(each.epoch for each in maps)
    return Counter(each for each in maps if each.epoch == latest).most_common(1)[0][0]


def _address(node: list[Any], asked: Address) -> Address:
    host = node[0].decode() if isinstance(node[0], bytes) else node[0]
    return (host if host not in {None, "", "?"} else asked[0]), int(node[1])
