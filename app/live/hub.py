"""Who looks at the live page, and what each is to be told."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from app.concurrency.clock import Clock, wall
from app.telemetry.live_page import LivePageMetrics

MAX_SUBSCRIBERS: Final = 64
MAX_QUEUED: Final = 32
"""Events that wait for one subscriber; of those that come then it is told nothing."""
KEPT_SAMPLES: Final = 300
KEPT_MARKS: Final = 100
KEPT_S: Final = 300.0
"""How far back somebody who comes is told."""


class TooManySubscribersError(Exception):
    """As many look as are served at a time."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_SUBSCRIBERS} streams of events are open already; close a page of those that show them")


class Kind(Enum):
    """Who looks: a page that shows all applications, or one of them that asks for this one's own."""

    PAGE = "page"
    PEER = "peer"


class Subscriber:
    """One stream's end: events wait here to be sent, at most `MAX_QUEUED`."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._waiting: deque[bytes] = deque()
        self._woken = asyncio.Event()
        self._is_ended = False

    def tell(self, event: bytes) -> bool:
        """Whether there was room for it."""
        if self._is_ended or len(self._waiting) >= MAX_QUEUED:
            return False
        self._waiting.append(event)
        self._woken.set()
        return True

    def end(self) -> None:
        """After what waits comes nothing more."""
        self._is_ended = True
        self._woken.set()

    async def next(self, timeout_s: float) -> bytes | None:
        """The next event, empty where none came in time; `None` at the end."""
        if not self._waiting and not self._is_ended:
            self._woken.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                return b""
        return self._waiting.popleft() if self._waiting else None


class Hub:
    """The subscribers, and what was told in the last minutes, for those who come later.

    `on_change` is called whenever one has come or gone.
    """

    def __init__(self, metrics: LivePageMetrics, now: Clock = wall) -> None:
        self._metrics = metrics
        self._now = now
        self._subscribers: set[Subscriber] = set()
        self._samples: deque[tuple[float, str]] = deque(maxlen=KEPT_SAMPLES)
        self._marks: deque[tuple[float, str]] = deque(maxlen=KEPT_MARKS)
        self._stampedes: dict[str, bytes] = {}
        self._is_closed = False
        self.on_change: Callable[[], None] = lambda: None

    def count(self, kind: Kind) -> int:
        """How many of this kind look."""
        return sum(each.kind is kind for each in self._subscribers)

    def subscribe(self, kind: Kind, hello: dict[str, Any], own: str) -> Subscriber:
        """A subscriber who has been told `hello` and what was; of the application `own` alone, if it is a peer.

        One who comes after `close` is at its end already. Raises `TooManySubscribersError`.
        """
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            self._metrics.refused.value += 1
            raise TooManySubscribersError
        subscriber = Subscriber(kind)
        if self._is_closed:
            subscriber.end()
            return subscriber
        subscriber.tell(event("hello", hello))
        if kind is Kind.PAGE:
            subscriber.tell(self._history())
        for name, stampede in self._stampedes.items():
            if kind is Kind.PAGE or name == own:
                subscriber.tell(stampede)
        self._subscribers.add(subscriber)
        self._changed()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Harmless twice."""
        subscriber.end()
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
            self._changed()

    def sample(self, sample: dict[str, Any], own: str) -> None:
        """Tell a second: pages of all applications, peers of `own` alone."""
        text = _json(sample)
        self._samples.append((sample["at"], text))
        self._tell(_event("sample", text), Kind.PAGE)
        if self.count(Kind.PEER):
            self._tell(event("sample", {**sample, "apps": {own: sample["apps"][own]}}), Kind.PEER)

    def mark(self, kind: str, what: str, at: float) -> None:
        """Tell pages that something was done, and when it was begun."""
        text = _json({"at": round(at, 3), "what": what, "kind": kind})
        self._marks.append((at, text))
        self._tell(_event("mark", text), Kind.PAGE)

    def stampede(self, app: str, fields: dict[str, Any], *, own: bool) -> None:
        """Tell the last stampede of one application."""
        told = event("stampede", fields)
        if self._stampedes.get(app) == told:
            return  # a peer tells its last one to whoever comes anew
        self._stampedes[app] = told
        self._tell(told, Kind.PAGE)
        if own:
            self._tell(told, Kind.PEER)

    def close(self) -> None:
        """End every stream; who comes from now on is ended at once, to come again, to another process."""
        self._is_closed = True
        for subscriber in list(self._subscribers):
            self.unsubscribe(subscriber)

    def _history(self) -> bytes:
        since = self._now() - KEPT_S
        samples, marks = (",".join(text for at, text in kept if at >= since) for kept in (self._samples, self._marks))
        return _event("history", f'{{"samples":[{samples}],"marks":[{marks}]}}')

    def _tell(self, told: bytes, kind: Kind) -> None:
        for subscriber in self._subscribers:
            if subscriber.kind is kind and not subscriber.tell(told):
                self._metrics.dropped.value += 1

    def _changed(self) -> None:
        self._metrics.subscribers.value = len(self._subscribers)
        self.on_change()


def event(name: str, data: dict[str, Any]) -> bytes:
    """As a stream of server-sent events has it."""
    return _event(name, _json(data))


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
