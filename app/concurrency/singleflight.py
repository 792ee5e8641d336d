"""Singleflight: concurrent calls for one key share one run of the work.

The first caller for a key starts a *flight*; callers that come while it is in the air wait for the same outcome. The
work runs in a task that the group owns, so it belongs to no caller: any of them, the first included, may be cancelled
or time out without the others noticing, and only when the last one has left is the work cancelled. The idea is that of
Go's `golang.org/x/sync/singleflight`; the rules about leaving are what asyncio adds to it.

A `Group` is bound to the event loop of its first call, and is not thread-safe.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy as copying
import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class FlightError(Exception):
    """Base of what a group raises on its own account; what the work raises is passed on as it is."""


class ReentrantCallError(FlightError, RuntimeError):
    """The work of a flight waits, directly or through other flights, for that same flight: it would never end."""


class TooManyWaitersError(FlightError):
    """The flight has as many waiters as the group allows; this caller was refused at once."""


class WaitTimeoutError(FlightError, TimeoutError):
    """The flight did not land within this caller's time. It goes on for the others."""


class FlightCancelledError(FlightError):
    """The work ended in a `CancelledError` of its own making; no caller was cancelled."""


class GroupClosedError(FlightError):
    """The group is closed, or was closed with the flight in the air."""


class WrongLoopError(FlightError, RuntimeError):
    """The group belongs to another event loop."""


class Outcome(NamedTuple, Generic[T]):
    """What a flight brought: its value, and whether another caller had started it."""

    value: T
    shared: bool


class _Flight:
    """One run of the work. Only its group's methods and `_land` change it."""

    __slots__ = ("__weakref__", "blocked_on", "closed", "key", "task", "waiters")

    task: asyncio.Task[Any]

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.waiters: dict[asyncio.Future[bool], None] = {}  # in the order in which they came
        self.blocked_on: list[_Flight] = []
        """Flights that this one's work waits for now; the edges of the graph that `reaches` walks."""
        self.closed = False

    def reaches(self, other: _Flight) -> bool:
        """Whether this flight waits for `other`, directly or through further flights, or is it."""
        seen: set[_Flight] = set()
        pending = [self]
        while pending:
            flight = pending.pop()
            if flight is other:
                return True
            if flight not in seen:
                seen.add(flight)
                pending += flight.blocked_on
        return False

    def value(self) -> Any:
        """The landed flight's value. Raises an exception that is the calling waiter's own."""
        if self.task.cancelled():
            if self.closed:
                raise GroupClosedError(f"the group was closed while {self.key!r} was in flight")
            raise FlightCancelledError(f"the work for {self.key!r} cancelled itself")
        error = self.task.exception()
        if error is not None:
            try:
                raise _own_instance(error) from error
            finally:
                del error  # or the traceback just raised, this frame and the exception would keep each other alive
        return self.task.result()


_current: contextvars.ContextVar[weakref.ref[_Flight] | None] = contextvars.ContextVar(
    "singleflight_current", default=None
)
"""The flight in whose work the running code is; shared by all groups, so that cycles across groups are found too.

Weakly, as the flight has the task, and the task the context: what is left of each flight that fails, its traceback's
frames included, would wait for the garbage collector. In the air its group holds it.
"""


def _caller() -> _Flight | None:
    """The flight that the running code works for, if it is in the air."""
    reference = _current.get()
    flight = None if reference is None else reference()
    # Code that outlived the flight it was started in: nothing waits for it.
    return None if flight is None or flight.task.done() else flight


class Group:
    """Flights by key.

    `max_waiters` bounds the callers that may wait on one flight besides the one that started it (`None`: no bound), and
    `wait_timeout_s` how long each caller waits, the first included (`None`: for ever).

    The work runs in a copy of the first caller's context: it sees that caller's context variables, and what it sets
    there is seen by nobody else.

    The value is handed to all callers as one object. It must be immutable, or be copied: `wrap` does that.
    """

    def __init__(self, *, max_waiters: int | None = None, wait_timeout_s: float | None = None) -> None:
        self._max_waiters = max_waiters
        self._wait_timeout_s = wait_timeout_s
        self._flights: dict[Hashable, _Flight] = {}
        # Every task not yet done, forgotten and abandoned flights included: the loop itself holds tasks only weakly.
        self._airborne: set[_Flight] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __len__(self) -> int:
        """The number of keys that a new caller would share a flight for."""
        return len(self._flights)

    async def do(self, key: Hashable, fn: Callable[[], Awaitable[T]]) -> T:
        """The value of `fn()`, called once for all concurrent callers of `key`.

        A caller can become the first just after a flight for the same key has landed; work in front of a cache should
        therefore look there again before it does anything expensive.

        Raises what `fn` raises, as an instance of the caller's own whose `__cause__` is the original, or a
        `FlightError`. A `BaseException` other than `CancelledError` also reaches the event loop.
        """
        return (await self.do_outcome(key, fn)).value

    async def do_outcome(self, key: Hashable, fn: Callable[[], Awaitable[T]]) -> Outcome[T]:
        """As `do`, with the word whether the flight was another caller's."""
        loop = self._bind()
        caller = _caller()
        flight = self._flights.get(key)
        shared = flight is not None
        if flight is None:
            flight = self._launch(key, fn, loop)
        elif caller is not None and flight.reaches(caller):
            raise ReentrantCallError(f"the work for {caller.key!r} would wait for itself by way of {key!r}")
        elif self._max_waiters is not None and len(flight.waiters) > self._max_waiters:
            raise TooManyWaitersError(f"{self._max_waiters} callers wait for {key!r} already")

        waiter: asyncio.Future[bool] = loop.create_future()
        flight.waiters[waiter] = None
        if caller is not None:
            caller.blocked_on.append(flight)
        timer = None
        if self._wait_timeout_s is not None:
            timer = loop.call_later(self._wait_timeout_s, _wake, waiter, False)
        try:
            landed = await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if caller is not None:
                caller.blocked_on.remove(flight)
            del flight.waiters[waiter]
            if not flight.waiters and not flight.task.done():
                self._abandon(flight)
        if not landed:
            raise WaitTimeoutError(f"no value for {key!r} within {self._wait_timeout_s} s")
        return Outcome(flight.value(), shared)

    def forget(self, key: Hashable) -> bool:
        """Let the next caller of `key` start a new flight; those waiting still get the old one's outcome.

        Returns whether there was a flight.
        """
        return self._flights.pop(key, None) is not None

    def forget_all(self) -> None:
        """`forget` for every key."""
        self._flights.clear()

    async def aclose(self, *, cancel: bool = False, timeout_s: float = 10.0) -> None:
        """Refuse new calls and wait for the flights in the air, at most `timeout_s` seconds; then cancel the rest.

        With `cancel`, cancel them at once. Waiters of a cancelled flight get `GroupClosedError`. Raises `TimeoutError`
        where work still runs `timeout_s` seconds after its cancellation.
        """
        self._bind(closing=True)
        caller = _caller()
        if caller in self._airborne:
            raise ReentrantCallError("a group can't be closed from within its own flight")
        self._closed = True
        self._flights.clear()
        if self._airborne and not cancel:
            await asyncio.wait([flight.task for flight in self._airborne], timeout=timeout_s)
        if self._airborne:
            for flight in self._airborne:
                flight.closed = True
                flight.task.cancel()
            _, running = await asyncio.wait([flight.task for flight in self._airborne], timeout=timeout_s)
            if running:
                raise TimeoutError(f"{len(running)} flights ignored their cancellation for {timeout_s} s")

    def wrap(
        self,
        method: Callable[P, Awaitable[T]],
        *,
        key: Callable[P, Hashable] | None = None,
        copy: Callable[[T], T] | None = copying.deepcopy,
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """An async function or method with the signature of `method`, whose concurrent calls share flights.

        Calls with equal `key(*args, **kwargs)` share one; by default all arguments count, defaults filled in, and must
        be hashable. Flights of different wrapped methods never meet. Each caller gets its own `copy` of the value; pass
        `copy=None` only where the value is immutable.
        """
        key_of = key if key is not None else _key_of_arguments(method)
        own = object()

        @functools.wraps(method)
        async def coalesced(*args: P.args, **kwargs: P.kwargs) -> T:
            value = await self.do((own, key_of(*args, **kwargs)), lambda: method(*args, **kwargs))
            return value if copy is None else copy(value)

        return coalesced

    def _bind(self, *, closing: bool = False) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoopError("this group was first used on another event loop; make one group for each loop")
        if self._closed and not closing:
            raise GroupClosedError("the group is closed")
        return loop

    def _launch(self, key: Hashable, fn: Callable[[], Awaitable[Any]], loop: asyncio.AbstractEventLoop) -> _Flight:
        flight = _Flight(key)
        context = contextvars.copy_context()
        context.run(_current.set, weakref.ref(flight))
        # Not by the loop's task factory: an eager one would run the work before the flight can be found.
        flight.task = asyncio.Task(_work(fn), loop=loop, context=context)
        self._flights[key] = flight
        self._airborne.add(flight)
        # A callback and not a `finally` in the task: a task cancelled before its first step never runs a line.
        flight.task.add_done_callback(functools.partial(self._land, flight))
        return flight

    def _land(self, flight: _Flight, task: asyncio.Task[Any]) -> None:
        self._airborne.discard(flight)
        self._remove(flight)
        if not task.cancelled():
            task.exception()  # marks it as retrieved, for the case that nobody is left to hear of it
        for waiter in flight.waiters:
            _wake(waiter, True)

    def _abandon(self, flight: _Flight) -> None:
        """The last caller has left. The key is free at once: a caller that comes while the work unwinds starts anew."""
        self._remove(flight)
        flight.task.cancel()

    def _remove(self, flight: _Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]


async def _work(fn: Callable[[], Awaitable[T]]) -> T:
    return await fn()


def _wake(waiter: asyncio.Future[bool], landed: bool) -> None:
    if not waiter.done():
        waiter.set_result(landed)


def _own_instance(error: BaseException) -> BaseException:
    """A new exception equal to `error`, without its traceback, cause and context.

    Copying calls the class again with `args`, which some classes refuse or take differently; those are rebuilt without
    their `__init__`. One that can't be made either way becomes a `FlightError` with its text.
    """
    for make in (copying.copy, _without_init):
        try:
            twin = make(error)
        except Exception:  # noqa: BLE001, S112 - a foreign constructor may raise anything; the next way is tried
            continue
        if twin is not error and type(twin) is type(error) and twin.args == error.args:
            if notes := getattr(error, "__notes__", None):
                twin.__notes__ = list(notes)
            return twin.with_traceback(None)
    return FlightError(f"{type(error).__name__}: {error}")


def _without_init(error: BaseException) -> BaseException:
    twin = type(error).__new__(type(error), *error.args)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    return twin


def _key_of_arguments(method: Callable[..., Any]) -> Callable[..., Hashable]:
    signature = inspect.signature(method)

    def key_of(*args: Any, **kwargs: Any) -> Hashable:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.args, tuple(sorted(bound.kwargs.items()))

    return key_of
