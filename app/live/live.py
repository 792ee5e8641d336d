"""The live page's clock: it runs while somebody looks, and costs nothing otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from app.concurrency.clock import Clock, monotonic, wall
from app.concurrency.tasks import TaskSet
from app.live.hub import Hub, Kind, Subscriber
from app.live.meter import Meter
from app.live.peers import Peers
from app.live.recorder import Recorder
from app.live.sample import Sample, StampedeFactor, between, summed

INTERVAL_S: Final = 1.0
MAX_TASKS: Final = 8
"""One, and those that were told to end."""
OWN: Final = "app"
"""What each application calls itself; its peers have other names for it."""


class Live:
    """Takes a sample each second while the hub has a subscriber, and follows the peers while it has a page.

    For one event loop.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        meter: Meter,
        mode: str,
        bounds_s: Sequence[float],
        recorder: Recorder,
        peers: Peers,
        now: Clock = wall,
        timer: Clock = monotonic,
    ) -> None:
        self.hub = hub
        self.recorder = recorder
        self._peers = peers
        self._meter = meter
        self._mode = mode
        self._bounds_s = bounds_s
        self._now = now
        self._timer = timer
        self._factors: dict[str, StampedeFactor] = {}
        self._tasks = TaskSet(limit=MAX_TASKS)
        self._sampling: asyncio.Task[None] | None = None
        hub.on_change = self._look

    @property
    def is_sampling(self) -> bool:
        """Whether somebody looks."""
        return self._sampling is not None

    def subscribe(self, kind: Kind, hello: dict[str, Any]) -> Subscriber:
        """Raises `TooManySubscribersError`."""
        return self.hub.subscribe(kind, hello, OWN)

    def end_streams(self) -> None:
        """The service is about to stop: pages are to come again, to whoever serves next."""
        self.hub.close()

    async def aclose(self, timeout_s: float) -> None:
        """End all, and wait for it, at most so long."""
        self.hub.close()
        await self._tasks.aclose(timeout_s)
        await self._peers.aclose(timeout_s)

    def _look(self) -> None:
        if self.hub.count(Kind.PAGE) + self.hub.count(Kind.PEER):
            if self._sampling is None:
                self._sampling = self._tasks.start(self._sample())
                self.recorder.switch(on=True)
        elif self._sampling is not None:
            self._sampling.cancel()
            self._sampling = None
            self.recorder.switch(on=False)
        if self.hub.count(Kind.PAGE):
            self._peers.start()
        else:
            self._peers.stop()

    async def _sample(self) -> None:
        before, read_at = self._meter.read(), self._timer()
        while True:
            await asyncio.sleep(INTERVAL_S)
            after, now = self._meter.read(), self._timer()
            own = between(self._mode, before, after, now - read_at, self._bounds_s)
            self._tell([(OWN, own), *self._peers.latest()])
            before, read_at = after, now

    def _tell(self, found: Sequence[tuple[str, Sample]]) -> None:
        by_name: dict[str, list[Sample]] = {}
        for name, sample in found:
            by_name.setdefault(name, []).append(sample)
        apps = {name: self._fields(name, summed(samples)) for name, samples in by_name.items()}
        self.hub.sample({"at": round(self._now(), 3), "apps": apps}, OWN)

    def _fields(self, name: str, sample: Sample) -> dict[str, Any]:
        return sample.fields(self._factors.setdefault(name, StampedeFactor()).after(sample))
