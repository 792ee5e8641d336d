"""Being told that a key's value, or its lease, may be had now: one subscription a process, and who waits on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.cache.cluster import ClusterClient
from app.concurrency.fair_timeout import LAG_S, TURNS, FairTimeout

_logger = logging.getLogger(__name__)

FIRST_RETRY_S, MOST_RETRY_S = 0.02, 1.0


class Wakeups:
    """Waiters by key, woken by messages on one channel whose text is the key.

    The subscription has a connection of its own. It is asked for a sign of life every `ping_s` seconds, and taken for
    dead where none comes within as long again: a server that hangs is noticed by nothing else. When it is lost all
    waiters are woken, since what would have woken them may have been said meanwhile.
    """

    def __init__(
        self, client: Redis | ClusterClient, channel: str, *, ping_s: float, on_state: Callable[[bool], None]
    ) -> None:
        self._client = client
        self._channel = channel
        self._ping_s = ping_s
        self._on_state = on_state
        self._waiters: dict[str, dict[asyncio.Event, None]] = {}  # in the order in which they came
        self._task: asyncio.Task[None] | None = None
        self.is_up = False

    def start(self) -> None:
        """Subscribe, and stay subscribed, in a task of this object's own."""
        self._task = asyncio.create_task(self._run(), name="wakeups")

    async def aclose(self) -> None:
        """End the subscription and wake who still waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @contextlib.contextmanager
    def expected(self, key: str) -> Iterator[asyncio.Event]:
        """An event that is set by every wake-up for `key` from now on. Enter before asking whether one is needed."""
        event = asyncio.Event()
        waiters = self._waiters.setdefault(key, {})
        waiters[event] = None
        try:
            yield event
        finally:
            del waiters[event]
            if not waiters and self._waiters.get(key) is waiters:
                del self._waiters[key]

    def wake(self, key: str) -> None:
        """Wake all who wait for `key`."""
        for event in self._waiters.get(key, ()):
            event.set()

    def wake_all(self) -> None:
        """Wake all who wait: what would have woken them may be lost."""
        for key in list(self._waiters):
            self.wake(key)

    async def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            try:
                async with self._client.pubsub() as subscription:
                    async with FairTimeout(2 * self._ping_s):
                        await subscription.subscribe(self._channel)
                    while True:
                        await self._listen(subscription)
                        retry_s = FIRST_RETRY_S
            except (RedisError, OSError, TimeoutError) as error:
                _logger.debug("wake-up subscription lost: %s", error)
            except Exception:
                # This task's end would leave everybody to wait out the leases of others from now on.
                _logger.exception("the wake-up subscription failed; it begins again")
            finally:
                self._lost()
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, MOST_RETRY_S)

    async def _listen(self, subscription: Any) -> None:
        """Messages until a sign of life is due and has come. Raises `TimeoutError` where it does not."""
        loop = asyncio.get_running_loop()
        pinged_at = None
        heard_at = loop.time()
        while True:
            message = await self._next(subscription)
            now = loop.time()
            if message is not None:
                heard_at, pinged_at = now, None
                self._heard(message)
                if message["type"] == "pong":
                    return
            elif pinged_at is None and now - heard_at >= self._ping_s:
                pinged_at = now
                async with FairTimeout(self._ping_s):
                    await subscription.ping()
            elif pinged_at is not None and now - pinged_at >= self._ping_s:
                raise TimeoutError(f"no sign of life for {now - heard_at:.1f} s")

    async def _next(self, subscription: Any) -> dict[str, Any] | None:
        """The next message, or `None` where none comes within `ping_s`.

        Where the event loop was held up as that time ran out, what has come in meanwhile is read first: it is no
        silence of the server's. See `FairTimeout`; a timer for each of many messages would cost more than this.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._ping_s
        message: dict[str, Any] | None = await subscription.get_message(timeout=self._ping_s)
        if message is None and loop.time() - due > LAG_S:
            for _ in range(TURNS):
                message = await subscription.get_message(timeout=self._ping_s / 10)
                if message is not None:
                    break
        return message

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self.wake(message["data"].decode(errors="replace"))
        elif message["type"] == "subscribe":
            if self.is_up:  # the client has connected anew by itself: the same as a loss
                self._wake_all()
            else:
                self.is_up = True
                self._on_state(True)

    def _lost(self) -> None:
        if self.is_up:
            self.is_up = False
            self._on_state(False)
        self._wake_all()

    def _wake_all(self) -> None:
        self.wake_all()
