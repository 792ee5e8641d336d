"""The parts of the read path that a caller can wait on, which tell its lane. Where nothing is recorded they add a look
at a context variable to what goes past L1, and nothing to L1's hits."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any

from app.cache.entry import Entry
from app.cache.origin import Load, Loaded
from app.cache.protection import Fill, Look, Protection, T
from app.cache.remote import Grant, RemoteCache, Taken
from app.concurrency.singleflight import Outcome
from app.live.lane import Lane, current_lane
from app.live.recorder import Crowd, Recorder


class RecordedFlights:
    """A `Protection` whose callers' lanes show whose work they waited for."""

    def __init__(self, protection: Protection) -> None:
        self._protection = protection

    def read(self, key: str, look: Look[T], fill: Fill[T]) -> Coroutine[Any, Any, Outcome[T]]:
        lane = current_lane.get()
        if lane is None or lane.key != key:
            return self._protection.read(key, look, fill)
        return self._recorded(lane, key, look, fill)

    async def _recorded(self, lane: Lane, key: str, look: Look[T], fill: Fill[T]) -> Outcome[T]:
        has_looked = False

        async def own_look() -> T | None:
            nonlocal has_looked
            if has_looked:
                lane.done()  # the second look: the key's lock has come
            else:
                lane.abandon()  # this caller's own flight
            has_looked = True
            found = await look()
            if found is None:
                lane.begin("lock")
            return found

        async def own_fill() -> T:
            lane.abandon()  # there was no lock to wait for
            return await fill()

        lane.begin("flight")
        try:
            return await self._protection.read(key, own_look, own_fill)
        finally:
            lane.done()

    def forget(self, key: str) -> None:
        self._protection.forget(key)

    def forget_all(self) -> None:
        self._protection.forget_all()

    async def aclose(self, timeout_s: float) -> None:
        await self._protection.aclose(timeout_s)


class RecordedRemote(RemoteCache):
    """A remote tier that the lane of who asks it shows, and the wait for another process' load after it."""

    def get(self, key: str) -> Coroutine[Any, Any, Entry | None]:
        lane, asked = current_lane.get(), super().get(key)
        return asked if lane is None else _got(lane, asked)

    def take(
        self, key: str, token: str, *, now: float, newer_than: float = 0.0, least_version: int = 0
    ) -> Coroutine[Any, Any, Taken | None]:
        lane = current_lane.get()
        asked = super().take(key, token, now=now, newer_than=newer_than, least_version=least_version)
        return asked if lane is None else _taken(lane, asked)


def recorded_load(load: Load, recorder: Recorder) -> Load:
    """`load`, counted, and shown in the lane of who does it."""

    def begun(key: str) -> Awaitable[Loaded]:
        crowd = recorder.crowd(key)
        return load(key) if crowd is None else shown(crowd, key)

    async def shown(crowd: Crowd, key: str) -> Loaded:
        lane = current_lane.get()
        crowd.load_began()
        if lane is not None:
            lane.begin_load()
        try:
            return await load(key)
        finally:
            crowd.load_ended()
            if lane is not None:
                lane.done()

    return begun


async def _got(lane: Lane, asked: Awaitable[Entry | None]) -> Entry | None:
    lane.begin("l2")
    try:
        return await asked
    finally:
        lane.done()


async def _taken(lane: Lane, asked: Awaitable[Taken | None]) -> Taken | None:
    lane.begin("l2")
    try:
        taken = await asked
    finally:
        lane.done()
    if taken is not None and taken.grant is Grant.LOST:
        lane.begin("lease")  # until it looks again, or gives up
    return taken
