"""Following templates for as long as one likes, over lost connections and restarts of the service."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import grpc

from app.client.errors import CallError, UnavailableError, call_error
from app.client.template import News
from app.concurrency.clock import Clock, monotonic
from app.proto.template.v1.template_pb2 import WatchTemplatesResponse

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Pauses before watching again, doubled each time, each from half of it to all of it at random: the watchers of a
replica that went away don't come back in one instant."""

AGAIN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED})
"""Endings after which to watch again; CANCELLED is what a server of gRPC's says that stops just then."""


class WatchCall(Protocol):
    """One WatchTemplates call, as gRPC has it."""

    def __aiter__(self) -> AsyncIterator[WatchTemplatesResponse]: ...

    def cancel(self) -> bool: ...


class Pauses:
    """How long to wait before each further try."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._next_s = FIRST_PAUSE_S

    def take(self, at_least_s: float | None = None) -> float:
        pause_s = self._next_s * (1 + self._draw()) / 2
        self._next_s = min(LONGEST_PAUSE_S, self._next_s * 2)
        return max(pause_s, at_least_s or 0.0)

    def reset(self) -> None:
        self._next_s = FIRST_PAUSE_S


class Follower:
    """What was told already, over all the calls of one watch: nothing older is told after it, nor the same again."""

    def __init__(self) -> None:
        self._told: dict[int, int] = {}
        self._of_this_call: set[int] = set()

    def began_anew(self) -> None:
        """The messages to come are another call's, which knows nothing of those before."""
        self._of_this_call.clear()

    def news(self, message: WatchTemplatesResponse) -> News | None:
        """What to tell of a message; `None` where it is nothing new."""
        news = News.of(message)
        before = self._told.get(news.id)
        first = news.id not in self._of_this_call
        self._of_this_call.add(news.id)
        if before is not None and news.version <= before:
            return None
        self._told[news.id] = news.version
        if first and before is not None:
            return replace(news, versions_skipped=news.version - before - 1)
        return news


async def follow(
    call: Callable[[], WatchCall],
    *,
    patience_s: float,
    tally: Counter[str] | None = None,
    clock: Clock = monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    pauses: Pauses | None = None,
) -> AsyncGenerator[News, None]:
    """What is new, of one call after the other. Raises a `CallError`.

    One that says to come again is raised only when nothing has been heard for `patience_s` seconds. `tally` counts how
    the calls ended, by the names of their statuses.
    """
    pauses = pauses or Pauses()
    tally = Counter() if tally is None else tally
    follower = Follower()
    heard = clock()
    while True:
        began = clock()
        stream = call()
        ended: CallError
        try:
            async for message in stream:
                heard = clock()
                news = follower.news(message)
                if news is not None:
                    yield news
                    heard = clock()  # a reader who takes long is not the service's silence
            tally["OK"] += 1
            ended = UnavailableError(grpc.StatusCode.UNAVAILABLE, "the service has ended the watch")
        except grpc.aio.AioRpcError as error:
            ended = call_error(error)
            tally[ended.status.name] += 1
            if error.code() not in AGAIN:
                raise ended from error
        finally:
            stream.cancel()
        now = clock()
        if now - began > LONGEST_PAUSE_S:
            heard = max(heard, now)  # it was a watch without news until now
            pauses.reset()
        pause_s = pauses.take(ended.retry_after_s)
        if now + pause_s - heard > patience_s:
            raise ended
        follower.began_anew()
        await sleep(pause_s)
