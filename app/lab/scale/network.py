"""How long messages are under way."""

from __future__ import annotations

from random import Random

NEAREST_S, FARTHEST_S = 0.000_1, 0.000_5
"""One way between a replica and a server, within one rack and across a region's zones."""
JITTER_S = 0.000_1
"""Mean of what comes on top."""
LOST, RETRANSMITTED_S = 1e-5, 0.2
"""One packet in so many is lost, and sent again after Linux' least retransmission timeout (TCP_RTO_MIN)."""


DRAWS = 1 << 17
"""Delays are drawn beforehand, so many for all links together, since one is needed for each of millions of messages."""


class Network:
    """What comes on top of the ways of all its links; drawn from `random`."""

    def __init__(self, random: Random) -> None:
        self.drawn = [
            random.expovariate(1 / JITTER_S) + (RETRANSMITTED_S if random.random() < LOST else 0.0)
            for _ in range(DRAWS)
        ]


class Link:
    """One replica's way to one server: as far as it is, and what the network's draws add, from a place of its own."""

    def __init__(self, network: Network, random: Random) -> None:
        self._drawn = network.drawn
        self._at = random.randrange(DRAWS)
        self._way_s = random.uniform(NEAREST_S, FARTHEST_S)

    def delay_s(self) -> float:
        """Of one message."""
        at = self._at = (self._at + 1) % DRAWS
        return self._way_s + self._drawn[at]
