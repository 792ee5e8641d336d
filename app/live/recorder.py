"""Stampedes, drawn: who waited on what, when many callers wanted one key at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from app.cache.loader import Reading
from app.concurrency.clock import Clock, monotonic, wall
from app.live.lane import ENDS, End, Lane, current_lane

LEAST_CALLERS: Final = 5
"""So many must wait at the same time for it to be a stampede."""
MAX_LANES: Final = 200
MAX_KEYS: Final = 256
"""Keys looked at at a time; reads of others are not recorded."""
QUIET_S: Final = 0.25
"""A stampede is over when nobody has waited for so long."""
LONGEST_S: Final = 20.0
"""Of one that goes on and on, so much is drawn."""


class Kept:
    """Lanes, few of many: every one at first, then every second, every fourth, by the order in which they came."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.stride = 1

    def add(self, lane: Lane) -> None:
        """Keep it, perhaps."""
        if lane.number % self.stride == 0:
            self.lanes.append(lane)
        if len(self.lanes) > 2 * MAX_LANES:
            self.thin(2 * self.stride)

    def thin(self, stride: int) -> None:
        """Keep each `stride`-th only."""
        self.stride = stride
        self.lanes = [lane for lane in self.lanes if lane.number % stride == 0]


class Crowd:
    """The callers of one key, from the first that came."""

    def __init__(self, key: str, at: float, timer: Clock) -> None:
        self.key = key
        self.at = at
        self._timer = timer
        self.began = self.last_wait = timer()
        self.callers = self.together = self.most_together = self.loads = self._loading = 0
        self._loaders, self._others = Kept(), Kept()
        self.has_waited = False

    def come(self) -> Lane:
        self.callers += 1
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        return Lane(self.key, self.callers, self._timer)

    def leave(self, lane: Lane, end: End) -> None:
        self.together -= 1
        lane.leave(end)
        if end != "hit":
            self.has_waited = True
            self.last_wait = self._timer()
        (self._loaders if lane.has_loaded else self._others).add(lane)

    def load_began(self) -> None:
        self.loads += 1
        self._loading += 1

    def load_ended(self) -> None:
        self._loading -= 1
        self.last_wait = self._timer()

    @property
    def is_nothing(self) -> bool:
        """Whether nobody has had to wait for a load, and nobody is there."""
        return not (self.has_waited or self.together or self.loads)

    def is_over(self, now: float) -> bool:
        """Whether nothing more is to be drawn of it."""
        if now - self.began >= LONGEST_S:
            return True
        return not self._loading and now - self.last_wait >= QUIET_S

    def lanes(self) -> list[Lane]:
        """At most `MAX_LANES` of those that have left, in the order in which they came: all loaders, where they are
        fewer, and others evenly chosen."""
        loaders, others = self._loaders, self._others
        if len(loaders.lanes) <= MAX_LANES and loaders.stride == 1:
            few = _evenly(sorted(others.lanes, key=_number), MAX_LANES - len(loaders.lanes))
            return sorted([*loaders.lanes, *few], key=_number)
        for each in (loaders, others):
            each.thin(max(loaders.stride, others.stride))
        return list(_evenly(sorted([*loaders.lanes, *others.lanes], key=_number), MAX_LANES))


class Recorder:
    """Records reads while `is_on`, and hands each stampede to `publish` when it is over.

    Where several end within a moment, that with the most callers stands for all. Reads that L1 answers ahead of the
    use cases do not come by here. For one event loop.
    """

    def __init__(
        self,
        publish: Callable[[dict[str, Any]], None],
        *,
        app: str,
        mode: str,
        now: Clock = wall,
        timer: Clock = monotonic,
    ) -> None:
        self._publish = publish
        self._app = app
        self._mode = mode
        self._now = now
        self._timer = timer
        self._crowds: dict[str, Crowd] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self.is_on = False

    def switch(self, *, on: bool) -> None:
        """Begin, or forget what was begun."""
        self.is_on = on
        if not on:
            self._crowds.clear()
            if self._sweeping is not None:
                self._sweeping.cancel()
                self._sweeping = None

    async def read(self, key: str, read: Callable[[str], Awaitable[Reading]]) -> Reading:
        """What `read` answers."""
        crowd = self._crowds.get(key)
        if crowd is None:
            if not self.is_on or len(self._crowds) >= MAX_KEYS:
                return await read(key)
            crowd = self._crowds[key] = Crowd(key, self._now(), self._timer)
            if self._sweeping is None:
                self._sweeping = asyncio.get_running_loop().call_later(QUIET_S, self._sweep)
        lane = crowd.come()
        token = current_lane.set(lane)
        end: End = "failed"
        try:
            reading = await read(key)
            end = ENDS[reading.source]
        except asyncio.CancelledError:
            end = "left"
            raise
        else:
            return reading
        finally:
            current_lane.reset(token)
            crowd.leave(lane, end)
            if crowd.is_nothing and self._crowds.get(key) is crowd:
                del self._crowds[key]

    def crowd(self, key: str) -> Crowd | None:
        """The callers of this key who are being recorded."""
        return self._crowds.get(key)

    def _sweep(self) -> None:
        """Draw what is over; and begin anew, of keys that are read all the time, what has been no stampede so far."""
        now = self._timer()
        over = [crowd for crowd in self._crowds.values() if crowd.is_over(now)]
        for crowd in over:
            del self._crowds[crowd.key]
        drawn = max(
            (crowd for crowd in over if crowd.most_together >= LEAST_CALLERS and (crowd.has_waited or crowd.loads)),
            key=lambda crowd: crowd.callers,
            default=None,
        )
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(QUIET_S, self._sweep) if self._crowds else None
        if drawn is not None and (lanes := drawn.lanes()):
            self._publish(self._fields(drawn, lanes))

    def _fields(self, crowd: Crowd, lanes: Sequence[Lane]) -> dict[str, Any]:
        origin = lanes[0].came
        took_s = max(lane.left or origin for lane in lanes) - origin
        return {
            "app": self._app,
            "mode": self._mode,
            "key": crowd.key,
            "at": round(crowd.at, 3),
            "callers": crowd.callers,
            "loads": crowd.loads,
            "took_ms": round(took_s * 1e3, 2),
            "lanes": [lane.fields(origin) for lane in lanes],
        }


def _number(lane: Lane) -> int:
    return lane.number


def _evenly(lanes: Sequence[Lane], most: int) -> Sequence[Lane]:
    """At most so many of them, the first and the last among them."""
    if len(lanes) <= most:
        return lanes
    if most < 2:
        return lanes[:most]
    return [lanes[round(index * (len(lanes) - 1) / (most - 1))] for index in range(most)]
