"""A bulkhead: only so many at a time, only so many waiting, and nobody waiting for ever."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from types import TracebackType


class BulkheadFullError(Exception):
    """As many wait already as may; this one was refused at once, or pushed out in favour of a key that waits less."""


class BulkheadTimeoutError(TimeoutError):
    """No slot came free in time."""


class _Outcome(Enum):
    """Of a wait."""

    GRANTED = auto()
    EXPIRED = auto()
    PUSHED_OUT = auto()


class Bulkhead:
    """`concurrent` slots, and at most `queued` callers waiting for one, each at most `wait_timeout_s` seconds.

    Slots that come free go to the keys in turn, and within a key to who came first. Where the queue is full, a caller
    whose key has fewer waiting than another takes the place of that other's last. So one hot key keeps no cold one out.
    A caller that finds a slot free never waits; nobody else can be waiting then.

    Bound to one event loop, and not thread-safe. All that happens to it costs the same however many wait.

    Raises `ValueError` unless there is at least one slot, `queued` is not negative and `wait_timeout_s` is positive;
    `None` is a wait without end.
    """

    def __init__(self, *, concurrent: int, queued: int, wait_timeout_s: float | None) -> None:
        if concurrent < 1 or queued < 0:
            raise ValueError(f"there must be a slot, and no less than no queue; not {concurrent} and {queued}")
        if wait_timeout_s is not None and not wait_timeout_s > 0:
            raise ValueError(f"wait_timeout_s must be positive, not {wait_timeout_s}")
        self._free = concurrent
        self._concurrent = concurrent
        self._queued = queued
        self._wait_timeout_s = wait_timeout_s
        self._queue = _Queue()

    @property
    def in_use(self) -> int:
        """Slots held now, those included that were just handed to a caller that has not gone on yet."""
        return self._concurrent - self._free

    @property
    def waiting(self) -> int:
        """Callers waiting now."""
        return len(self._queue)

    def slot(self, key: Hashable) -> AbstractAsyncContextManager[None]:
        """Hold a slot. Entering raises `BulkheadFullError` at once, and `BulkheadTimeoutError` after the wait."""
        return _Slot(self._acquire, key, self._hand_on)

    async def _acquire(self, key: Hashable) -> None:
        if self._free:
            self._free -= 1
            return
        if len(self._queue) >= self._queued:
            self._make_room(key)
        # Outcomes and a timer of its own, as an exception that comes by a future, or by `asyncio.timeout`, is held by
        # its own traceback: a crowd that is refused would leave all its frames to the garbage collector.
        loop = asyncio.get_running_loop()
        caller: asyncio.Future[_Outcome] = loop.create_future()
        self._queue.append(key, caller)
        timer = (
            None if self._wait_timeout_s is None else loop.call_later(self._wait_timeout_s, self._expire, key, caller)
        )
        try:
            outcome = await caller
        except BaseException:
            if caller.done() and not caller.cancelled() and caller.result() is _Outcome.GRANTED:
                self._hand_on()  # granted in the same tick; the slot is not ours to lose
            else:
                self._queue.remove(key, caller)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if outcome is _Outcome.EXPIRED:
            raise BulkheadTimeoutError(f"no slot within {self._wait_timeout_s} s")
        if outcome is _Outcome.PUSHED_OUT:
            raise BulkheadFullError(f"{self._queued} callers wait already, most of them for one key")

    def _expire(self, key: Hashable, caller: asyncio.Future[_Outcome]) -> None:
        if not caller.done():
            self._queue.remove(key, caller)
            caller.set_result(_Outcome.EXPIRED)

    def _hand_on(self) -> None:
        """Give a slot that came free to the next in turn, or keep it free."""
        granted = self._queue.pop_next()
        if granted is None:
            self._free += 1
        else:
            granted.set_result(_Outcome.GRANTED)

    def _make_room(self, key: Hashable) -> None:
        """Have the last of the longest line leave, unless the newcomer's own would then be as long."""
        if self._queue.longest <= self._queue.length(key) + 1:
            raise BulkheadFullError(f"{self._queued} callers wait already")
        pushed_out = self._queue.pop_last_of_longest()
        if not pushed_out.done():
            pushed_out.set_result(_Outcome.PUSHED_OUT)


class _Slot:
    # Not a generator's context: one that is closed while it waits would not hear of it, and keep its place for ever.
    __slots__ = ("_acquire", "_key", "_release")

    def __init__(
        self, acquire: Callable[[Hashable], Awaitable[None]], key: Hashable, release: Callable[[], None]
    ) -> None:
        self._acquire = acquire
        self._key = key
        self._release = release

    async def __aenter__(self) -> None:
        await self._acquire(self._key)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()


_Line = OrderedDict[asyncio.Future[_Outcome], None]


class _Queue:
    """A line of waiting callers a key, the keys in the order of their turns, and the keys by their lines' lengths."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()
        self._by_length: dict[int, OrderedDict[Hashable, None]] = {}
        self._size = 0
        self.longest = 0
        """Length of the longest line."""

    def __len__(self) -> int:
        return self._size

    def length(self, key: Hashable) -> int:
        return len(self._lines.get(key, ()))

    def append(self, key: Hashable, caller: asyncio.Future[_Outcome]) -> None:
        line = self._lines.setdefault(key, OrderedDict())
        line[caller] = None
        self._grown(key, len(line), by=1)

    def remove(self, key: Hashable, caller: asyncio.Future[_Outcome]) -> None:
        """Harmless where the caller is not there any more."""
        line = self._lines.get(key)
        if line is not None and caller in line:
            del line[caller]
            self._grown(key, len(line), by=-1)

    def pop_next(self) -> asyncio.Future[_Outcome] | None:
        """The first caller of the key whose turn it is; that key's next turn comes after all others'.

        Callers who were cancelled, and have not left the queue yet, leave it here, and take no turn. `None` where
        nobody else waits.
        """
        while self._lines:
            key, line = next(iter(self._lines.items()))
            caller, _ = line.popitem(last=False)
            if not caller.done():
                self._lines.move_to_end(key)
            self._grown(key, len(line), by=-1)
            if not caller.done():
                return caller
        return None

    def pop_last_of_longest(self) -> asyncio.Future[_Outcome]:
        key = next(iter(self._by_length[self.longest]))
        line = self._lines[key]
        caller, _ = line.popitem()
        self._grown(key, len(line), by=-1)
        return caller

    def _grown(self, key: Hashable, length: int, *, by: int) -> None:
        """Note that the line of `key` has come to `length`, by one more or one less."""
        self._size += by
        before = length - by
        if before:
            peers = self._by_length[before]
            del peers[key]
            if not peers:
                del self._by_length[before]
        if length:
            self._by_length.setdefault(length, OrderedDict())[key] = None
        else:
            del self._lines[key]
        if length > self.longest or (before == self.longest and before not in self._by_length):
            self.longest = length
