"""How concurrent reads of one key that all miss are kept from loading it all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from app.concurrency.keyed_lock import KeyedLock
from app.concurrency.singleflight import Group, Outcome

T = TypeVar("T")

Look = Callable[[], Awaitable[T | None]]
Fill = Callable[[], Awaitable[T]]


class Protection(Protocol):
    """One way to compose looking into the cache with filling it."""

    async def read(self, key: str, look: Look[T], fill: Fill[T]) -> Outcome[T]:
        """What `look` finds or, where it finds nothing, what `fill` brings; and whether another caller brought it."""
        ...

    def forget(self, key: str) -> None:
        """From now on nobody may join work on `key` that began earlier: the value has changed since."""
        ...

    def forget_all(self) -> None:
        """`forget` for every key."""
        ...

    async def aclose(self, timeout_s: float) -> None:
        """Take no new reads, and give those in hand `timeout_s` seconds."""
        ...


async def _look_then_fill(look: Look[T], fill: Fill[T]) -> T:
    found = await look()
    return await fill() if found is None else found


class Unprotected:
    """Plain cache-aside: every read that misses loads. This is the stampede."""

    async def read(self, key: str, look: Look[T], fill: Fill[T]) -> Outcome[T]:  # noqa: ARG002
        return Outcome(await _look_then_fill(look, fill), shared=False)

    def forget(self, key: str) -> None:
        """Nothing is shared, so there is nothing to forget."""

    def forget_all(self) -> None:
        """As `forget`."""

    async def aclose(self, timeout_s: float) -> None:
        """Nothing outlives its caller, so there is nothing to wait for."""


class Mutex:
    """A lock a key around the load: one at a time, each looking into the cache again when its turn comes."""

    def __init__(self, *, max_waiters: int | None, wait_timeout_s: float | None) -> None:
        self._locks = KeyedLock(max_waiters=max_waiters, timeout_s=wait_timeout_s)

    async def read(self, key: str, look: Look[T], fill: Fill[T]) -> Outcome[T]:
        found = await look()
        if found is None:
            async with self._locks.holding(key):
                found = await _look_then_fill(look, fill)
        return Outcome(found, shared=False)

    def forget(self, key: str) -> None:
        """Nothing is shared: whoever holds the lock loads for itself."""

    def forget_all(self) -> None:
        """As `forget`."""

    async def aclose(self, timeout_s: float) -> None:
        """Nothing outlives its caller, so there is nothing to wait for."""


class Singleflight:
    """One flight a key: the first caller's look and fill serve all who come meanwhile.

    The look is part of the flight, so a caller that becomes the first just after a flight landed finds its value.
    """

    def __init__(self, *, max_waiters: int | None, wait_timeout_s: float | None) -> None:
        self._group = Group(max_waiters=max_waiters, wait_timeout_s=wait_timeout_s)

    async def read(self, key: str, look: Look[T], fill: Fill[T]) -> Outcome[T]:
        return await self._group.do_outcome(key, lambda: _look_then_fill(look, fill))

    def forget(self, key: str) -> None:
        self._group.forget(key)

    def forget_all(self) -> None:
        self._group.forget_all()

    async def aclose(self, timeout_s: float) -> None:
        await self._group.aclose(timeout_s=timeout_s)
