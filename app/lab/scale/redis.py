"""One Redis that all replicas reach over the simulated network, with its failover."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.cache import scripts
from app.lab.scale.network import Link
from app.lab.simulation.redis_model import Argument, ScriptModel
from app.lab.simulation.virtual_time import VirtualTimeLoop

COMMAND_S, DELIVERY_S = 10e-6, 0.5e-6
"""How long the one thread is busy with a command, and with a message to one subscriber."""
KINDS = {
    scripts.TAKE: "take",
    scripts.PUT: "put",
    scripts.RELEASE: "release",
    scripts.REVOKE: "revoke",
    scripts.INVALIDATE: "invalidate",
    scripts.DISCARD: "discard",
    scripts.NOTE: "note",
}

Strings = dict[str, tuple[bytes, float]]


class SimulatedRedis:
    """Commands are carried out whole, in the order in which they arrive, by one thread."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._subscriptions: dict[SimulatedSubscription, None] = {}
        self._idle_from = 0.0
        self._incarnation = 0
        self.data = ScriptModel(loop.time, self._publish)
        self.is_up = True
        self.commands: Counter[str] = Counter()
        self.delivered = 0
        """Messages to subscribers."""
        self.busy_s = 0.0

    def snapshot(self) -> Strings:
        return dict(self.data.strings)

    def go_down(self) -> None:
        """Connections are lost, and new ones refused. What was on its way is answered by nobody."""
        self.is_up = False
        self._incarnation += 1
        for subscription in tuple(self._subscriptions):
            subscription.cut()
        self._subscriptions.clear()

    def come_up(self, strings: Strings) -> None:
        """Another server, which holds `strings`, takes the place."""
        self.data.strings = strings
        self.is_up = True

    def ask(self, kind: str, command: Callable[[], Any], link: Link) -> asyncio.Future[Any]:
        """The command's answer. One that is not waited for any more is carried out all the same."""
        answer = self._loop.create_future()
        self._loop.post_at(self._loop.time() + link.delay_s(), self._carry_out, kind, command, link, answer)
        return answer

    def _carry_out(self, kind: str, command: Callable[[], Any], link: Link, answer: asyncio.Future[Any]) -> None:
        now = self._loop.time()
        if not self.is_up:
            self._loop.post_at(now + link.delay_s(), self._refuse, answer)
            return
        self.commands[kind] += 1
        self._work(COMMAND_S)
        said = command()
        self._loop.post_at(self._idle_from + link.delay_s(), self._answer, answer, said, self._incarnation)

    def _work(self, seconds: float) -> None:
        self._idle_from = max(self._idle_from, self._loop.time()) + seconds
        self.busy_s += seconds

    def _answer(self, answer: asyncio.Future[Any], said: Any, incarnation: int) -> None:
        if incarnation != self._incarnation:
            self._refuse(answer)
        elif not answer.done():
            answer.set_result(said)

    def _refuse(self, answer: asyncio.Future[Any]) -> None:
        if not answer.done():
            answer.set_exception(RedisConnectionError("refused"))

    def _publish(self, _channel: str, text: str) -> None:
        self._work(DELIVERY_S * len(self._subscriptions))
        self.delivered += len(self._subscriptions)
        message = {"type": "message", "data": text.encode()}
        for subscription in self._subscriptions:
            subscription.send(message, self._idle_from)

    def join(self, subscription: SimulatedSubscription) -> None:
        self._subscriptions[subscription] = None

    def leave(self, subscription: SimulatedSubscription) -> None:
        self._subscriptions.pop(subscription, None)


class SimulatedClient:
    """One process' connections. Once it `is_cut`, nothing of it reaches the server any more: the process is dead."""

    def __init__(self, loop: VirtualTimeLoop, server: SimulatedRedis, link: Link) -> None:
        self._loop = loop
        self._server = server
        self._link = link
        self.is_cut = False

    def as_redis(self) -> Redis:
        """As the type that those who take a client ask for."""
        return cast("Redis", self)

    def register_script(self, text: str) -> Callable[..., Awaitable[Any]]:
        run, kind = self._server.data.by_text[text], KINDS[text]

        def call(*, keys: Sequence[str | bytes], args: Sequence[Argument]) -> Awaitable[Any]:
            names = [key.decode() if isinstance(key, bytes) else key for key in keys]
            return self._ask(kind, partial(run, names, args))

        return call

    def get(self, name: str) -> Awaitable[bytes | None]:
        return self._ask("get", partial(self._server.data.get, name))

    def ping(self) -> Awaitable[bool]:
        return self._ask("ping", lambda: True)

    def unlink(self, *names: bytes) -> Awaitable[int]:
        return self._ask("unlink", lambda: sum(self._server.data.delete(name.decode()) for name in names))

    async def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:  # noqa: ARG002
        """Every name: who asks takes those that it wants."""
        for name in await self._ask("scan", lambda: list(self._server.data.strings)):
            yield name.encode()

    def pubsub(self) -> SimulatedSubscription:
        return SimulatedSubscription(self._loop, self._server, self._link, self._ask)

    async def aclose(self) -> None:
        """Holds nothing."""

    def _ask(self, kind: str, command: Callable[[], Any]) -> asyncio.Future[Any]:
        if self.is_cut:
            raise RedisConnectionError("the process is dead")
        return self._server.ask(kind, command, self._link)


class SimulatedSubscription:
    """A subscription's connection: messages come in the order in which they were sent, and wait to be asked for."""

    def __init__(
        self,
        loop: VirtualTimeLoop,
        server: SimulatedRedis,
        link: Link,
        ask: Callable[[str, Callable[[], Any]], asyncio.Future[Any]],
    ) -> None:
        self._loop = loop
        self._server = server
        self._link = link
        self._ask = ask
        self._heard: deque[dict[str, Any]] = deque()
        self._is_lost = False
        self._last_arrival = 0.0
        self._waiting: asyncio.Future[None] | None = None
        self._patient_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.leave(self)
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()

    async def subscribe(self, _channel: str) -> None:
        await self._ask("subscribe", partial(self._server.join, self))
        self._arrive({"type": "subscribe", "data": b""})

    async def ping(self) -> None:
        """The answer comes as a message, if any comes."""
        asked = self._ask("ping", partial(self._pong, {"type": "pong", "data": b""}))
        asked.add_done_callback(lambda done: done.exception())  # a refusal shows by the message that does not come

    def _pong(self, message: dict[str, Any]) -> None:
        self.send(message, self._loop.time())

    async def get_message(self, timeout: float) -> dict[str, Any] | None:
        """The next one; `None` where none comes within `timeout` seconds."""
        if not self._heard and not self._is_lost:
            self._waiting = self._loop.create_future()
            self._patient_until = self._loop.time() + timeout
            # One for many messages: it looks, when its time comes, whether that is the time.
            if self._timer is not None and self._timer.when() > self._patient_until:
                self._timer.cancel()
                self._timer = None
            if self._timer is None:
                self._timer = self._loop.call_at(self._patient_until, self._run_out)
            try:
                await self._waiting
            finally:
                self._waiting = None
        if self._heard:
            return self._heard.popleft()
        if self._is_lost:
            raise RedisConnectionError("lost")
        return None

    def send(self, message: dict[str, Any], at: float) -> None:
        """From the server, at the time `at`."""
        self._last_arrival = max(self._last_arrival, at + self._link.delay_s())
        self._loop.post_at(self._last_arrival, self._arrive, message)

    def cut(self) -> None:
        self._is_lost = True
        self._go_on()

    def _arrive(self, message: dict[str, Any]) -> None:
        if not self._is_lost:
            self._heard.append(message)
            self._go_on()

    def _run_out(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._patient_until:
            self._timer = self._loop.call_at(self._patient_until, self._run_out)
        else:
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
