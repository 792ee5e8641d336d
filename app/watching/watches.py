"""All watchers of this process, told of changes by one read each."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from app.domain.errors import DomainError, OverloadedError, StoppingError, StorageUnavailableError
from app.domain.ports import Announced, Reading
from app.watching.watch import State, Watch

LOADS = 8
"""Most reads at a time for all watches together: the others of the process want the database too."""
KEPT_BYTES = 16 << 20
"""Most bytes of payloads kept for watchers that have yet to take them; past it they are read once more."""
WOKEN_A_TURN = 64
"""Watchers woken in one turn of the event loop."""
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0

Pause = Callable[[float], Awaitable[None]]

_log = logging.getLogger(__name__)


class WatchEvents(Protocol):
    """What happens to watches, for metrics."""

    def told(self, skipped: int) -> None:
        """A watcher took a state, and was not told of so many versions before it."""
        ...

    def watch_load_failed(self) -> None:
        """A state could not be read; the read is tried again while anyone watches."""
        ...

    def watch_refused(self) -> None:
        """There were too many watches, or too many ids in them."""
        ...


class _Topic:
    """An id that somebody watches."""

    __slots__ = ("failures", "id", "least_version", "loading", "reads", "wanted", "watches")

    def __init__(self, template_id: int) -> None:
        self.id = template_id
        self.watches: dict[Watch, None] = {}
        self.least_version = 0
        """Announced or told: what is below it is past."""
        self.wanted = False
        """Its state is to be read, or read again."""
        self.reads = False
        """Its state is being read, and then told to all who watch by then."""
        self.loading: asyncio.Task[None] | None = None
        self.failures = 0


class Watches:
    """All watches of this process, fed by one stream of changes.

    A change costs one `read`, however many watch, and each watcher an entry in what it has yet to take: ids, no values.
    So one that never takes anything keeps nobody waiting and costs nothing but its ids.

    `read` gives the state of an id as it is when it is called, or one that is announced to be past by `changed`, then
    or later. It may raise; while the database is away it is tried again, with pauses, and nothing is lost meanwhile.

    Bound to one event loop. At most `max_watches` at a time, of at most `max_ids` ids together, counted in each.
    """

    def __init__(
        self,
        read: Callable[[int], Awaitable[Reading]],
        *,
        max_watches: int,
        max_ids: int,
        events: WatchEvents,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._read = read
        self._max_watches = max_watches
        self._max_ids = max_ids
        self._events = events
        self._pause = pause
        self._watches: dict[Watch, None] = {}
        self._topics: dict[int, _Topic] = {}
        self._watched = 0
        self._kept: OrderedDict[int, State] = OrderedDict()
        self._kept_bytes = 0
        # Two lines, served in turns, so that neither a flood of changes nor one of new watches holds up the other.
        self._changed: dict[_Topic, None] = {}
        self._asked: dict[_Topic, None] = {}
        self._turn = False
        self._loading: set[asyncio.Task[None]] = set()
        self._follows = False
        self._is_closed = False
        # Reads are nobody's own: they must not go by the name of the call that happened to start one.
        self._context = contextvars.copy_context()

    def __len__(self) -> int:
        """Watches that are open."""
        return len(self._watches)

    @property
    def ids(self) -> int:
        """Ids that are watched, counted in each watch."""
        return self._watched

    def open(self, ready: asyncio.Event | None = None, *, fails_fast: bool = False) -> Watch:
        """A watch of no ids yet; `ready` is set whenever there may be something to take.

        With `fails_fast` an id whose first state cannot be read ends the watch; otherwise it is told when it can be.
        Raises `OverloadedError` where there are too many, `StoppingError` after `close`.
        """
        if self._is_closed:
            raise StoppingError
        if len(self._watches) >= self._max_watches:
            self._events.watch_refused()
            raise OverloadedError(text=f"too many watches: this process takes {self._max_watches}")
        watch = Watch(self, ready or asyncio.Event(), fails_fast)
        self._watches[watch] = None
        return watch

    def feed_lost(self) -> None:
        """From now on changes may be missed: watches stay, and no new ids are taken."""
        self._follows = False

    def feed_caught_up(self) -> None:
        """All changes up to now have been told by `changed`, and further ones will be."""
        self._follows = True

    def changed(self, changes: Iterable[Announced]) -> None:
        """What was read of these before is past."""
        for change in changes:
            topic = self._topics.get(change.id)
            if topic is not None and change.version > topic.least_version:
                topic.least_version = change.version
                self._drop(change.id)
                self._want(topic, self._changed)
        self._pump()

    def everything_changed(self) -> None:
        """Any id may have changed, and versions may have begun anew: all that are watched are read again."""
        self._kept.clear()
        self._kept_bytes = 0
        for topic in self._topics.values():
            topic.least_version = 0
            if topic.loading is not None:
                topic.loading.cancel()  # what it reads may be from before
            self._want(topic, self._changed)
        self._pump()

    def flushed(self) -> None:
        """What watchers were told is no cache."""

    def close(self) -> None:
        """Every watch ends by `StoppingError`, and no new one is opened. Harmless when repeated."""
        self._is_closed = True
        for watch in self._watches:
            watch.fail(StoppingError)

    async def aclose(self) -> None:
        """`close`, and the reads under way end."""
        self.close()
        self._changed.clear()
        self._asked.clear()
        self._topics.clear()
        loading = set(self._loading)
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)

    def add(self, watch: Watch, ids: Sequence[int]) -> None:
        """For `Watch.add`."""
        if self._is_closed:
            raise StoppingError
        if not self._follows:
            raise StorageUnavailableError
        if self._watched + len(ids) > self._max_ids:
            self._events.watch_refused()
            raise OverloadedError(text=f"too many ids are watched: this process takes {self._max_ids}")
        self._watched += len(ids)
        for template_id in ids:
            topic = self._topics.get(template_id)
            if topic is None:
                topic = self._topics[template_id] = _Topic(template_id)
            topic.watches[watch] = None

    def remove(self, watch: Watch, ids: Iterable[int]) -> None:
        """For `Watch.remove`. The last watcher of an id takes along the read that is under way for it."""
        for template_id in ids:
            self._watched -= 1
            topic = self._topics.get(template_id)
            if topic is None:
                continue
            topic.watches.pop(watch, None)
            if not topic.watches:
                del self._topics[template_id]
                self._drop(template_id)
                self._changed.pop(topic, None)
                self._asked.pop(topic, None)
                if topic.loading is not None:
                    topic.loading.cancel()

    def forget(self, watch: Watch) -> None:
        """For `Watch.close`."""
        self._watches.pop(watch, None)

    def state(self, template_id: int) -> State | None:
        """For `Watch.take`."""
        state = self._kept.get(template_id)
        topic = self._topics.get(template_id)
        if state is None and topic is not None and not topic.reads:
            self._want(topic, self._asked)
            self._pump()
        return state

    def took(self, skipped: int) -> None:
        """For `Watch.take`."""
        self._events.told(skipped)

    def _want(self, topic: _Topic, line: dict[_Topic, None]) -> None:
        topic.wanted = True
        if topic.loading is None and topic not in self._changed and topic not in self._asked:
            line[topic] = None

    def _pump(self) -> None:
        """Start as many of the reads that are wanted as may run."""
        while len(self._loading) < LOADS and (topic := self._next()) is not None:
            task = asyncio.create_task(self._load(topic), context=self._context.copy())
            topic.loading = task
            self._loading.add(task)
            task.add_done_callback(partial(self._loaded, topic), context=self._context)

    def _next(self) -> _Topic | None:
        self._turn = not self._turn
        line = (self._changed or self._asked) if self._turn else (self._asked or self._changed)
        if not line:
            return None
        topic = next(iter(line))
        del line[topic]
        return topic

    def _loaded(self, topic: _Topic, task: asyncio.Task[None]) -> None:
        self._loading.discard(task)
        topic.loading = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("telling watchers of template %d failed", topic.id, exc_info=error)
        if topic.wanted and self._topics.get(topic.id) is topic:
            self._want(topic, self._changed)
        self._pump()

    async def _load(self, topic: _Topic) -> None:
        topic.wanted, topic.reads = False, True
        try:
            reading = await self._read(topic.id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the watchers are there, and it is tried again
            topic.reads = False
            if not isinstance(error, DomainError):
                _log.error("reading template %d for its watchers failed", topic.id, exc_info=error)
            for watch in list(topic.watches):
                watch.not_read(topic.id, error)
            await self._later(topic)
            return
        topic.reads = False
        if reading.version < topic.least_version:
            # It was read before the change that was announced meanwhile. Read again, it is of after it; where not even
            # that is so, something in between holds on to what is past, and is not to be asked without end.
            topic.wanted = True
            if topic.failures:
                await self._later(topic)
            else:
                topic.failures = 1
            return
        topic.failures = 0
        topic.least_version = reading.version
        self._keep(State(topic.id, reading.version, reading.payload))
        watches = list(topic.watches)
        for start in range(0, len(watches), WOKEN_A_TURN):
            if start:
                await asyncio.sleep(0)
            for watch in watches[start : start + WOKEN_A_TURN]:
                watch.tell(topic.id, reading.version)

    async def _later(self, topic: _Topic) -> None:
        """A pause, longer from one failure to the next, before it is tried again."""
        self._events.watch_load_failed()
        topic.wanted = True
        pause_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** min(topic.failures, 10))
        topic.failures += 1
        await self._pause(pause_s * random.uniform(0.5, 1.0))

    def _keep(self, state: State) -> None:
        self._drop(state.id)
        self._kept[state.id] = state
        self._kept_bytes += len(state.payload or b"")
        while self._kept_bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.payload or b"")

    def _drop(self, template_id: int) -> None:
        state = self._kept.pop(template_id, None)
        if state is not None:
            self._kept_bytes -= len(state.payload or b"")
