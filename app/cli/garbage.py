"""Python's garbage collector, kept from collecting while much is in hand.

A collection stops the process for as long as it looks at what there is: 250 ms where a thousand requests wait, which
live on, so that it was for nothing. The youngest objects are few, and looked at often; the others in quiet moments.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

THRESHOLDS = 2_000, 1_000, 60
"""Allocations before a collection of the youngest (under a millisecond), and how many of each generation before one of
the next where no quiet moment comes: two million objects at most wait to be looked at. A thousand requests that wait
are a quarter of that."""
QUIET_AT_MOST = 20
"""Requests in hand in a quiet moment."""
LEAST_YOUNG, LEAST_MIDDLE = 5, 30
"""Collections of one generation from which on the next one is collected in a quiet moment."""
INTERVAL_S = 0.5


def settle() -> None:
    """What was made until now stays, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


async def collect_when_quiet(in_hand: Callable[[], float]) -> None:
    """Look again and again whether something is due and the moment is quiet, until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        if in_hand() <= QUIET_AT_MOST and (generation := due(gc.get_count())):
            gc.collect(generation)


def due(count: tuple[int, int, int]) -> int:
    """The generation to be collected in a quiet moment, by the collector's own counts; 0 for none."""
    if count[2] >= LEAST_MIDDLE:
        return 2
    return 1 if count[1] >= LEAST_YOUNG else 0
