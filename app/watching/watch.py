"""One watcher: what it has been told of each of its ids, and what it is to be told next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from app.domain.errors import InvalidInputError, StorageUnavailableError, Violation
from app.domain.template import MAX_ID

MAX_IDS = 1_000
"""Most ids of one watch."""


class State:
    """What is known of an id: the template as JSON, `None` where there is none, and that or the deletion's version.

    One object for all watchers; `wire` is room for what an API made ready of it.
    """

    __slots__ = ("id", "payload", "version", "wire")

    def __init__(self, template_id: int, version: int, payload: bytes | None) -> None:
        self.id = template_id
        self.version = version
        self.payload = payload
        self.wire: bytes | None = None


class News(NamedTuple):
    """The newest state of one id, and how many versions between the one last told and this one were left out."""

    state: State
    skipped: int


class Hub(Protocol):
    """What a watch is a part of, and what it needs of it: `app.watching.watches.Watches`."""

    def add(self, watch: Watch, ids: Sequence[int]) -> None:
        """The watch is to be woken when there is a new state of one of these, from now on.

        Raises as `Watch.add` says; then none of them is added.
        """
        ...

    def remove(self, watch: Watch, ids: Iterable[int]) -> None:
        """It is not any more."""
        ...

    def forget(self, watch: Watch) -> None:
        """The watch is closed."""
        ...

    def state(self, template_id: int) -> State | None:
        """The newest state, if it is at hand; where it is not it is read, and all who watch the id are woken then."""
        ...

    def took(self, skipped: int) -> None:
        """A state was taken, with so many versions left out before it."""
        ...


class Watch:
    """One watcher's ids, and which of them it has yet to hear of. `with` closes it.

    What is told of an id has a version above what was told of it before, or after `add` the same once more.
    """

    __slots__ = ("_again", "_error", "_fails_fast", "_hub", "_is_closed", "_news", "_ready", "_told")

    def __init__(self, hub: Hub, ready: asyncio.Event, fails_fast: bool) -> None:
        self._hub = hub
        self._ready = ready
        self._fails_fast = fails_fast
        self._told: dict[int, int | None] = {}
        """By id: the version last told."""
        self._news: dict[int, None] = {}
        """Ids to look at, each once, in the order of their news."""
        self._again: set[int] = set()
        """Ids to be told of though nothing may have changed."""
        self._error: Callable[[], Exception] | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_settled(self) -> bool:
        """Whether of each id a state has been told since it was added, and there is nothing to take."""
        return not self._again and not self._news

    def add(self, ids: Sequence[int]) -> None:
        """Watch these ids, too: their state now is told, and every change from now on.

        Raises `InvalidInputError` where none is given, an impossible one, or more than `MAX_IDS` with those that are
        watched already; `OverloadedError` where the process takes no more; `StorageUnavailableError` where changes are
        not being announced; `StoppingError` where the service is about to stop. Then none of them is added.
        """
        asked = dict.fromkeys(ids)
        for place, template_id in enumerate(ids):
            if not 1 <= template_id <= MAX_ID:
                raise InvalidInputError(Violation(f"ids[{place}]", f"must be a whole number from 1 to {MAX_ID}"))
        new = [template_id for template_id in asked if template_id not in self._told]
        if not asked or len(self._told) + len(new) > MAX_IDS:
            count = f"{len(self._told) + len(new)} with those watched already" if self._told else f"{len(asked)}"
            raise InvalidInputError(Violation("ids", f"must be 1 to {MAX_IDS} different ones, are {count}"))
        self._hub.add(self, new)
        self._told.update(dict.fromkeys(new))
        self._again.update(asked)
        # Those that are not at hand are read from now on, and are news then.
        self._news.update((template_id, None) for template_id in asked if self._hub.state(template_id) is not None)
        self._ready.set()

    def remove(self, ids: Iterable[int]) -> None:
        """Watch these no more: nothing of them is taken from now on. Those that are not watched don't matter."""
        gone = [template_id for template_id in dict.fromkeys(ids) if template_id in self._told]
        for template_id in gone:
            del self._told[template_id]
            self._news.pop(template_id, None)
            self._again.discard(template_id)
        self._hub.remove(self, gone)

    def close(self) -> None:
        """Watch nothing any more. Harmless when repeated."""
        if not self._is_closed:
            self._is_closed = True
            self.remove(list(self._told))
            self._hub.forget(self)

    def take(self) -> News | None:
        """The next news; `None` where there is none now.

        Raises `StoppingError` where the service is about to stop; `StorageUnavailableError` where the database is
        another one now, whose versions are lower; with `fails_fast` what the read of a first state raised.
        """
        if self._error is not None:
            raise self._error()
        while self._news:
            template_id = next(iter(self._news))
            del self._news[template_id]
            state = self._hub.state(template_id)
            if state is None:
                continue  # its news come when it is read
            told = self._told[template_id]
            if (
                told is not None
                and state.version <= told
                and not (state.version == told and template_id in self._again)
            ):
                continue
            self._told[template_id] = state.version
            self._again.discard(template_id)
            skipped = 0 if told is None else max(0, state.version - told - 1)
            self._hub.took(skipped)
            return News(state, skipped)
        return None

    async def next(self) -> News:
        """The next news, as soon as there is any; raises as `take`. Being cancelled loses nothing."""
        while (news := self.take()) is None:
            self._ready.clear()
            await self._ready.wait()
        return news

    def fail(self, error: Callable[[], Exception]) -> None:
        """From now on there is nothing to take: `take` raises what `error` makes."""
        if self._error is None:
            self._error = error
            self._ready.set()

    def tell(self, template_id: int, version: int) -> None:
        """The id's state of this version is at hand."""
        if template_id not in self._told:
            return
        told = self._told[template_id]
        if told is not None and version < told:
            self.fail(StorageUnavailableError)  # versions have begun anew: only a new watch can tell them
        elif told is None or version > told or template_id in self._again:
            self._news[template_id] = None
            self._ready.set()

    def not_read(self, template_id: int, error: Exception) -> None:
        """The id's state cannot be read now, for this reason."""
        if self._fails_fast and template_id in self._told and self._told[template_id] is None:
            self.fail(lambda: error.with_traceback(None))
