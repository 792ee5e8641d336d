"""Decisions about an entry's age, as pure functions: what goes in is numbers, what comes out is numbers.

Times are wall-clock seconds since the epoch; expiry is decided by the entry's own dates, never by an event.
"""

from __future__ import annotations

import math
from enum import IntEnum

LONGEST_LEAD = 37.0
"""No more than -ln of the least `random` there is, 2^-53: further from the expiry nothing needs to be drawn."""


class Usability(IntEnum):
    """What an entry is good for now; a greater one is good for all that the smaller ones are."""

    NONE = 0
    ON_ERROR = 1
    """Only where a load fails or takes too long."""
    GRACE = 2
    """At once, while it is loaded anew."""
    FRESH = 3


def jittered_ttl(ttl_s: float, jitter: float, random: float) -> float:
    """A life between `ttl_s * (1 - jitter)` and `ttl_s`, picked by `random` in [0, 1).

    Jitter only shortens, so `ttl_s` stays the bound that is promised, and keys filled together part ways.
    """
    return ttl_s * (1.0 - jitter * random)


def usability(now: float, expires_at: float, *, grace_s: float, stale_if_error_s: float) -> Usability:
    """What an entry is good for, by its age alone.

    Both stretches begin at the expiry (RFC 5861), which is in them, and their ends are not.
    A clock that is set back makes an entry fresh again, and its life longer by as much.
    """
    late_s = now - expires_at
    if late_s < 0:
        return Usability.FRESH
    if late_s < grace_s:
        return Usability.GRACE
    return Usability.ON_ERROR if late_s < stale_if_error_s else Usability.NONE


def wants_early_refresh(now: float, expires_at: float, load_cost_s: float, beta: float, random: float) -> bool:
    """XFetch: whether this read of a fresh entry should load it anew already.

    `now - load_cost_s * beta * ln(random) >= expires_at`, with `random` in (0, 1] (Vattani, Chierichetti, Lowenstein:
    Optimal Probabilistic Cache Stampede Prevention, VLDB 2015). The chance rises towards the expiry, over a time that
    grows with the cost of the load; `beta` above 1 is earlier, and 0 never. A cost that is not positive, as that of a
    value that was written and not loaded, is never early either. A `random` of 0 counts as the least one above it.
    """
    lead_s = load_cost_s * beta
    if lead_s <= 0 or expires_at - now > LONGEST_LEAD * lead_s:
        return False
    return random <= 0 or now - lead_s * math.log(random) >= expires_at


def distrusted_at(created_at: float, trusted_for_s: float | None) -> float:
    """Until when an entry can be trusted to be what the origin has.

    `trusted_for_s` is `None` while the origin announces its changes, and else for how long after its load an entry is
    trusted without that.
    """
    return math.inf if trusted_for_s is None else created_at + trusted_for_s
