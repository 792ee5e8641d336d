"""The feed of changes to templates: what the database announces, without gaps that nobody hears of."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

import asyncpg

from app.concurrency.clock import Clock, monotonic
from app.domain.errors import StorageUnavailableError
from app.storage.announcements import Announcements, Found, Position
from app.storage.change import Change, ChangeListener
from app.storage.errors import StorageConfigurationError
from app.storage.postgres import ANSWER_GRACE_S, CONNECTION_LOST, Connection, dedicated_connection
from app.storage.subscription import Batch, Subscription

__all__ = ["Batch", "Change", "ChangeFeed", "ChangeListener", "Position", "Subscription"]

logger = logging.getLogger(__name__)

MOST_FOUND = 100_000
"""Changes of one gap; for more, everything may have changed."""
CATCH_UP_TIMEOUT_S = 5.0
"""Longest run of the query after a gap; past it, everything may have changed."""
RETRY_FIRST_S, RETRY_MOST_S = 0.02, 1.0
_TOLD_AT_ONCE = 1_000


class ChangeFeed:
    """Tells listeners of every committed change, over a connection of its own that is replaced whenever it is lost.

    The connection is tried every `heartbeat_s`; one that does not answer within `answer_timeout_s` is lost. So a loss
    that nobody signals, by a hung server or network, is found after the sum of both at the latest; or up to
    three tenths of `answer_timeout_s` later, where this process was kept from running as the time ran out.

    `resume_from` is the `position` of an earlier feed, in this process or another, up to which all has been told: then
    what was committed since is told first.
    """

    def __init__(
        self,
        url: str,
        *,
        heartbeat_s: float = 0.5,
        answer_timeout_s: float = 1.0,
        connect_timeout_s: float = 2.0,
        resume_from: Position | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._url = url
        self._heartbeat_s = heartbeat_s
        self._answer_timeout_s = answer_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._position = resume_from
        self._told_until: float | None = None
        self._listeners: list[ChangeListener] = []
        self._task: asyncio.Task[None] | None = None
        self._is_up = False
        self._is_closed = False
        self._started = asyncio.Event()
        self._missed = False
        """Without a position: whether there has been anybody who may have missed something."""
        self._is_steady = False
        self._complaint = ""

    @property
    def is_up(self) -> bool:
        """Whether all changes are being told; a loss may not have been noticed yet."""
        return self._is_up

    @property
    def position(self) -> Position | None:
        """Up to where in the database's history all has been told; `None` before the first connection."""
        return self._position

    @property
    def told_until(self) -> float | None:
        """The clock's time at which `position` was asked for: what was committed before has been told."""
        return self._told_until

    def add(self, listener: ChangeListener) -> None:
        """From now on tells the listener: at first, during this call, whether the feed is caught up or lost."""
        self._listeners.append(listener)
        self._each_of([listener], _caught_up if self._is_up else _lost)

    def remove(self, listener: ChangeListener) -> None:
        """Harmless where it was not added."""
        self._listeners = [each for each in self._listeners if each is not listener]

    def subscribe(self, max_ids: int) -> Subscription:
        """Changes from now on, for a consumer that takes them at its own pace; see there."""
        if self._is_closed:
            raise RuntimeError("the feed is closed")
        subscription = Subscription(max_ids, self.remove)
        self._listeners.append(subscription)
        return subscription

    async def start(self) -> None:
        """Begins, and returns when the feed is up, or after the connect timeout: then it goes on trying.

        Never raises for a database that cannot be reached or refuses us; that is logged.
        """
        if self._task is not None or self._is_closed:
            raise RuntimeError("a feed starts once")
        self._task = asyncio.create_task(self._run(), name="change-feed")
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._started.wait()
        except TimeoutError:
            logger.warning("changes are not announced yet: no connection within %g s", self._connect_timeout_s)
        finally:
            self._missed = True

    async def aclose(self) -> None:
        """Ends the connection, at any point and harmless when repeated; listeners are told that the feed is lost."""
        self._is_closed = True
        self._started.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for listener in list(self._listeners):
            if isinstance(listener, Subscription):
                listener.close()

    async def _run(self) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            self._is_steady = False
            try:
                await self._follow()
            except (
                StorageUnavailableError,
                StorageConfigurationError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                OSError,
            ) as error:
                self._complain(error)
            except Exception:
                # The feed's end would leave listeners without word for ever.
                logger.exception("the feed of changes failed; it begins again")
            if self._is_steady:
                pause_s = RETRY_FIRST_S
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def _follow(self) -> None:
        """One connection, until it is lost; raises then."""
        async with dedicated_connection(
            self._url,
            connect_timeout_s=self._connect_timeout_s,
            start_timeout_s=self._connect_timeout_s,
            statement_timeout_s=CATCH_UP_TIMEOUT_S,
            lock_timeout_s=CATCH_UP_TIMEOUT_S,
            application_name="template-changes",
        ) as connection:
            try:
                await self._listen(connection)
            except asyncio.CancelledError:
                raise
            except BaseException:
                # It may hang: there is no use in a farewell.
                connection.terminate()
                raise
            finally:
                self._down()

    async def _listen(self, connection: Connection) -> None:
        announcements = Announcements(connection, self._tell, self._flush, self._answer_timeout_s)
        await announcements.open()
        await self._catch_up(announcements)
        self._up()
        while True:
            await announcements.wait(self._heartbeat_s)
            asked = self._clock()
            if announcements.must_look and self._position is not None:
                await self._tell_found(
                    await announcements.since(self._position, MOST_FOUND, self._answer_timeout_s), asked
                )
            else:
                position = await announcements.beat()
                if not announcements.must_look:
                    self._told(position, asked)
            self._is_steady = True

    async def _catch_up(self, announcements: Announcements) -> None:
        asked = self._clock()
        if self._position is not None:
            try:
                found = await announcements.since(self._position, MOST_FOUND, CATCH_UP_TIMEOUT_S + ANSWER_GRACE_S)
            except asyncpg.PostgresError as error:
                if isinstance(error, CONNECTION_LOST):
                    raise
                logger.warning("what changed meanwhile cannot be found out, so all may have: %s", error)
                self._position, self._missed = None, True
            else:
                await self._tell_found(found, asked)
                return
        position = await announcements.beat()
        if self._missed:
            self._each(_everything_changed)
        self._told(position, asked)

    async def _tell_found(self, found: Found, asked: float) -> None:
        if found.rows is None:
            self._each(_everything_changed)
        else:
            for start in range(0, len(found.rows), _TOLD_AT_ONCE):
                self._tell([Change(*row) for row in found.rows[start : start + _TOLD_AT_ONCE]])
                await asyncio.sleep(0)  # others want the event loop too
        self._told(found.position, asked)

    def _told(self, position: Position, asked: float) -> None:
        self._position, self._told_until = position, asked

    def _up(self) -> None:
        self._is_up = True
        self._complaint = ""
        logger.info("changes are announced")
        self._each(_caught_up)
        self._started.set()

    def _down(self) -> None:
        if self._is_up:
            self._is_up = False
            self._each(_lost)

    def _tell(self, changes: Sequence[Change]) -> None:
        self._each(lambda listener: listener.changed(changes))

    def _flush(self) -> None:
        self._each(_flushed)

    def _each(self, tell: Callable[[ChangeListener], None]) -> None:
        self._each_of(tuple(self._listeners), tell)

    def _each_of(self, listeners: Sequence[ChangeListener], tell: Callable[[ChangeListener], None]) -> None:
        for listener in listeners:
            try:
                tell(listener)
            except Exception:
                logger.exception("a listener to changes failed: %r", listener)

    def _complain(self, error: Exception) -> None:
        """Once for each kind of trouble in a row, not at each attempt."""
        complaint = str(error).partition("\n")[0] or type(error).__name__
        if complaint != self._complaint:
            self._complaint = complaint
            logger.warning("changes are not announced, trying again: %s", complaint)


def _caught_up(listener: ChangeListener) -> None:
    listener.feed_caught_up()


def _lost(listener: ChangeListener) -> None:
    listener.feed_lost()


def _everything_changed(listener: ChangeListener) -> None:
    listener.everything_changed()


def _flushed(listener: ChangeListener) -> None:
    listener.flushed()
