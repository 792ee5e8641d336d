"""Other applications, or replicas of this one, as their own streams of events tell of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from app.concurrency.clock import Clock, monotonic
from app.concurrency.resolver import Resolver
from app.concurrency.tasks import TaskSet
from app.live import drawing
from app.live.http import HttpError, Place, asked
from app.live.sample import Sample, parse

PATH: Final = "/events?for=peer"
RETRY_S: Final = 1.0
SILENCE_S: Final = 5.0
"""A peer that says nothing for so long is asked anew; it has something to say each second."""
FRESH_S: Final = 2.5
"""What it said longer ago is not what it does now."""
MAX_EVENT_BYTES: Final = 1 << 20

_log = logging.getLogger(__name__)

Stampede = Callable[[str, dict[str, Any]], None]


class Peer:
    """One of them: what it said last. `on_stampede` is told its name here and the picture."""

    def __init__(
        self,
        name: str,
        place: Place,
        own: str,
        on_stampede: Stampede,
        *,
        timer: Clock = monotonic,
        resolver: Resolver | None = None,
    ) -> None:
        self.name = name
        self._resolver = resolver or Resolver()
        self._place = place
        self._own = own
        self._on_stampede = on_stampede
        self._timer = timer
        self._sample: Sample | None = None
        self._heard_at = 0.0

    @property
    def latest(self) -> Sample | None:
        """What it does now; not up where it does not say so; `None` where it has never been there."""
        sample = self._sample
        if sample is None or self._timer() - self._heard_at <= FRESH_S:
            return sample
        return Sample(sample.mode, up=False)

    async def follow(self) -> None:
        """Listen to it, for as long as this is not cancelled."""
        while True:
            try:
                await self._listen()
            except HttpError as error:
                _log.debug("the live page's peer %s: %s", self.name, error)
            await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        request = self._place.head("GET", PATH, "Accept: text/event-stream") + b"\r\n"
        unread = b""
        async with (
            asked(self._place, request, self._resolver) as answer,
            contextlib.aclosing(answer.pieces(SILENCE_S)) as pieces,
        ):
            async for piece in pieces:
                if answer.status != 200:
                    raise HttpError(f"it answers {answer.status}")
                *events, unread = (unread + piece).split(b"\n\n")
                if len(unread) > MAX_EVENT_BYTES:
                    raise HttpError(f"an event of more than {MAX_EVENT_BYTES} bytes")
                for event in events:
                    self._heard(event)

    def _heard(self, event: bytes) -> None:
        """What is no event that is known says nothing."""
        name, _, data = event.partition(b"\n")
        if name not in (b"event: sample", b"event: stampede") or not data.startswith(b"data: "):
            return
        try:
            fields = json.loads(data.removeprefix(b"data: "))
        except (ValueError, RecursionError):
            return
        if name == b"event: stampede":
            picture = drawing.parse(fields, self.name)
            if picture is not None:
                self._on_stampede(self.name, picture)
            return
        apps = fields.get("apps") if isinstance(fields, dict) else None
        sample = parse(apps.get(self._own)) if isinstance(apps, dict) else None
        if sample is not None:
            self._sample, self._heard_at = sample, self._timer()


class Peers:
    """All of them, followed from `start` to `stop`."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = peers
        self._tasks = TaskSet(limit=4 * len(peers) + 1)
        self._following: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Harmless twice."""
        if not self._following:
            started = (self._tasks.start(peer.follow()) for peer in self._peers)
            self._following = [task for task in started if task is not None]

    def stop(self) -> None:
        """Nobody looks any more."""
        for task in self._following:
            task.cancel()
        self._following = []

    def latest(self) -> list[tuple[str, Sample]]:
        """What each does now, but those that have never been there."""
        return [(peer.name, sample) for peer in self._peers if (sample := peer.latest) is not None]

    async def aclose(self, timeout_s: float) -> None:
        """Stop, and wait for it."""
        self.stop()
        await self._tasks.aclose(timeout_s)
