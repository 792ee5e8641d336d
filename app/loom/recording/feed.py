"""What changes, for those who watch, a few times a second and never more than they can take."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from app.loom.recording.record import Record

INTERVAL_S: Final = 0.2
"""Between two batches of one subscriber."""
MAX_PENDING: Final = 1_000
"""Most records that wait for a subscriber; where more change, the oldest are left out of the batch, and counted."""
MAX_PENDING_BYTES: Final = 64 << 20
"""By estimate, of the records that wait: the ring may have let go of them, and a subscriber may read no more."""
MAX_SUBSCRIBERS: Final = 32


class TooManySubscribersError(Exception):
    """No more can watch; the text says how many do."""


class Batch(NamedTuple):
    """Records that changed since the last batch, each once, in the order of their last change."""

    records: tuple[Record, ...]
    left_out: int
    """How many more changed."""


class Feed:
    """A sink of the recorder. Costs next to nothing where nobody watches."""

    def __init__(self, *, interval_s: float = INTERVAL_S, max_pending: int = MAX_PENDING) -> None:
        self._interval_s = interval_s
        self._max_pending = max_pending
        self._subscribers: set[Subscriber] = set()
        self.left_out = 0
        """Changes that some subscriber was not told of."""

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribe(self) -> Subscriber:
        """From now on; `async with` ends it. Raises `TooManySubscribersError`."""
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise TooManySubscribersError(f"{MAX_SUBSCRIBERS} are watching already")
        subscriber = Subscriber(self._interval_s, self._max_pending, self._left)
        self._subscribers.add(subscriber)
        return subscriber

    def changed(self, record: Record) -> None:
        for subscriber in self._subscribers:
            subscriber.put(record)

    finished = changed

    def close(self) -> None:
        """Every subscriber's iteration ends."""
        for subscriber in list(self._subscribers):
            subscriber.close()

    def _left(self, subscriber: Subscriber | None, left_out: int) -> None:
        self.left_out += left_out
        if subscriber is not None:
            self._subscribers.discard(subscriber)


class Subscriber:
    """Batches, taken by `async for`."""

    def __init__(self, interval_s: float, max_pending: int, tell: Callable[[Subscriber | None, int], None]) -> None:
        self._interval_s = interval_s
        self._max_pending = max_pending
        self._tell = tell
        self._pending: OrderedDict[str, tuple[Record, int]] = OrderedDict()
        """With what each was counted as."""
        self._pending_bytes = 0
        self._left_out = 0
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, record: Record) -> None:
        pending, size = self._pending, record.size_bytes
        before = pending.pop(record.id, None)
        pending[record.id] = record, size
        self._pending_bytes += size if before is None else size - before[1]
        while len(pending) > self._max_pending or (self._pending_bytes > MAX_PENDING_BYTES and len(pending) > 1):
            _, (_, gone) = pending.popitem(last=False)
            self._pending_bytes -= gone
            self._left_out += 1
        if not self._ready.is_set():
            self._ready.set()

    def close(self) -> None:
        """Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._pending.clear()
            self._ready.set()
            self._tell(self, 0)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The next batch, an interval after the last one at the earliest; being cancelled loses nothing."""
        await self._ready.wait()
        if not self._closed:
            await asyncio.sleep(self._interval_s)  # what comes meanwhile is of this batch
        if self._closed:
            raise StopAsyncIteration
        batch = Batch(tuple(record for record, _ in self._pending.values()), self._left_out)
        self._pending, self._pending_bytes, self._left_out = OrderedDict(), 0, 0
        self._ready.clear()
        self._tell(None, batch.left_out)
        return batch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
