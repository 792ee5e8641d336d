"""Redis in memory, as far as the cache asks anything of it: the meaning of the scripts, said a second time.

`ScriptModel` is held equal to the scripts by `tests/cache/test_redis_model.py`. `ModelServer` is one Redis with its
time, its outages and its failovers, and `ModelClient` what `RemoteCache` and `Wakeups` need of a client.
"""

from __future__ import annotations

import asyncio
import fnmatch
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.cache import scripts
from app.concurrency.clock import Clock

Argument = bytes | float | int | str
Answer = int | str | list[Any]

_ENTRY = re.compile(rb"^tc1 (\d+) ([\d.]+) ([\d.]+) ", re.ASCII)


class ScriptModel:
    """Strings by name, each with the end of its life, in seconds of `clock`. `published` is told of every message."""

    def __init__(self, clock: Clock, published: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._published = published
        self.strings: dict[str, tuple[bytes, float]] = {}
        self.by_text: dict[str, Callable[[Sequence[str], Sequence[Argument]], Answer]] = {
            scripts.TAKE: self.take,
            scripts.PUT: self.put,
            scripts.RELEASE: self.release,
            scripts.REVOKE: self.revoke,
            scripts.INVALIDATE: self.invalidate,
            scripts.DISCARD: self.discard,
            scripts.NOTE: self.note,
        }

    def get(self, name: str) -> bytes | None:
        held = self.strings.get(name)
        if held is None:
            return None
        if self._clock() >= held[1]:
            del self.strings[name]
            return None
        return held[0]

    def delete(self, name: str) -> int:
        there = self.get(name) is not None
        self.strings.pop(name, None)
        return int(there)

    def take(self, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        value, lease, floor = keys
        token, lease_ms, now, newer_than, least_version = args
        read = self._entry(value)
        if read is not None and read[1] < max(float(least_version), self._floor(floor)):
            read = None
        if read is not None and read[2] > float(newer_than) and read[2] + read[3] > float(now):
            return ["hit", read[0]]
        fallback = b"" if read is None else read[0]
        held = self.strings[lease][1] if self.get(lease) is not None else None
        if held is not None:
            return ["lost", fallback, round((held - self._clock()) * 1000)]
        self._set(lease, _bytes(token), int(lease_ms))
        return ["won", fallback]

    def put(self, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        value, lease, floor = keys
        token, version, entry, life_ms, channel, key = args
        wake = False
        if token != "":
            if self.get(lease) != _bytes(token):
                return "fenced"
            self.delete(lease)
            wake = True
        stored = self._entry(value)
        match = _ENTRY.match(_bytes(entry))
        created = float(match[2]) if match else 0.0
        answer = "past"
        newer_there = stored is not None and (
            stored[1] > int(version) or (stored[1] == int(version) and stored[2] > created)
        )
        if int(version) >= self._floor(floor) and not newer_there:
            self._set(value, _bytes(entry), int(life_ms))
            wake = wake or self.get(lease) is not None
            answer = "stored"
        if wake:
            self._published(str(channel), str(key))
        return answer

    def release(self, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        channel, *others = args
        given_back = 0
        for lease, token, key in zip(keys, others[::2], others[1::2], strict=True):
            if self.get(lease) == _bytes(token):
                self.revoke([lease], [channel, key])
                given_back += 1
        return given_back

    def revoke(self, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        if not self.delete(keys[0]):
            return 0
        self._published(_bytes(args[0]).decode(), _bytes(args[1]).decode())
        return 1

    def invalidate(self, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        value, lease, floor = keys
        version, floor_ms, channel, key = args
        if self._floor(floor) >= int(version):
            return 0
        self._set(floor, _bytes(version), int(floor_ms))
        stored = self._entry(value)
        if stored is not None and stored[1] >= int(version):
            return 0
        self.delete(value)
        if self.delete(lease):
            self._published(str(channel), str(key))
        return 1

    def discard(self, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        return self.delete(keys[0]) if self.get(keys[0]) == _bytes(args[0]) else 0

    def note(self, keys: Sequence[str], args: Sequence[Argument]) -> Answer:
        self.strings[keys[0]] = (_bytes(args[0]), math.inf)
        return "OK"

    def _set(self, name: str, value: bytes, life_ms: int) -> None:
        self.strings[name] = (value, self._clock() + life_ms / 1000)

    def _floor(self, name: str) -> int:
        floor = self.get(name)
        return int(floor) if floor is not None and re.fullmatch(rb"[0-9]+", floor) else 0

    def _entry(self, name: str) -> tuple[bytes, int, float, float] | None:
        """The bytes, version, date and life of what can be read as an entry."""
        data = self.get(name)
        match = None if data is None else _ENTRY.match(data)
        if data is None or match is None:
            return None
        try:
            return data, int(match[1]), float(match[2]), float(match[3])
        except ValueError:
            return None


class ModelServer:
    """One Redis on the loop's time. A command takes `latency_s` each way."""

    def __init__(self, clock: Clock, *, latency_s: float) -> None:
        self.latency_s = latency_s
        self.state = "up"
        """`up`, `down` (connections are refused) or `hung` (nothing is answered)."""
        self.commands = 0
        self.data = ScriptModel(clock, self.publish)
        self._subscriptions: set[ModelSubscription] = set()
        self._changed = asyncio.Event()
        self._unread: list[Callable[[], Any]] = []

    def change(self, state: str) -> None:
        """The state from now on; who waits for an answer under the old one learns of it as a client would."""
        self.state = state
        unread, self._unread = self._unread, []
        if state == "up":
            for command in unread:
                command()
        self._changed.set()
        self._changed = asyncio.Event()
        if state == "down":
            for subscription in tuple(self._subscriptions):
                subscription.cut()

    def fail_over(self, strings: dict[str, tuple[bytes, float]]) -> None:
        """Another server takes this one's place, which holds `strings`. Connections are lost."""
        state = self.state
        self.data.strings = dict(strings)
        self.change("down")
        self.change(state)

    def publish(self, _channel: str, text: str) -> None:
        for subscription in self._subscriptions:
            subscription.hear("message", text)

    async def run(self, command: Callable[[], Any]) -> Any:
        """The command's answer. A command that was given up while the server hung is carried out afterwards."""
        self.commands += 1
        await asyncio.sleep(self.latency_s)
        try:
            await self._until_it_answers()
        except asyncio.CancelledError:
            self._unread.append(command)
            raise
        answer = command()
        await asyncio.sleep(self.latency_s)
        await self._until_it_answers()
        return answer

    async def _until_it_answers(self) -> None:
        while self.state == "hung":
            await self._changed.wait()
        if self.state == "down":
            raise RedisConnectionError("refused")

    def join(self, subscription: ModelSubscription) -> None:
        self._subscriptions.add(subscription)

    def leave(self, subscription: ModelSubscription) -> None:
        self._subscriptions.discard(subscription)


class ModelClient:
    """A connection pool of one process. When it is `cut`, nothing of it reaches the server any more: it is dead."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self.is_cut = False

    def as_redis(self) -> Redis:
        """As the type that those who take a client ask for."""
        return cast("Redis", self)

    def register_script(self, text: str) -> Callable[..., Awaitable[Any]]:
        run = self._server.data.by_text[text]

        async def call(*, keys: Sequence[str | bytes], args: Sequence[Argument]) -> Any:
            names = [key.decode() if isinstance(key, bytes) else key for key in keys]
            return await self._run(lambda: run(names, args))

        return call

    async def get(self, name: str) -> bytes | None:
        return cast("bytes | None", await self._run(lambda: self._server.data.get(name)))

    async def ping(self) -> bool:
        return bool(await self._run(lambda: True))

    async def unlink(self, *names: bytes) -> int:
        return int(await self._run(lambda: sum(self._server.data.delete(name.decode()) for name in names)))

    async def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:  # noqa: ARG002 - as Redis'
        pattern = re.sub(r"\\(.)", r"[\1]", match)
        names = await self._run(lambda: [n for n in self._server.data.strings if fnmatch.fnmatchcase(n, pattern)])
        for name in names:
            yield name.encode()

    def pubsub(self) -> ModelSubscription:
        return ModelSubscription(self._server, self._run)

    async def aclose(self) -> None:
        """Holds nothing."""

    async def _run(self, command: Callable[[], Any]) -> Any:
        if self.is_cut:
            raise RedisConnectionError("the process is dead")
        return await self._server.run(command)


class ModelSubscription:
    """A subscription's connection, on which messages wait until they are asked for."""

    def __init__(self, server: ModelServer, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._server = server
        self._run = run
        self._heard: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.leave(self)

    async def subscribe(self, _channel: str) -> None:
        await self._run(lambda: self._server.join(self))
        self.hear("subscribe", "")

    async def ping(self) -> None:
        """The answer comes as a message, if any comes."""
        if self._server.state == "up":
            self.hear("pong", "")

    async def get_message(self, timeout: float) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(timeout):
                message = await self._heard.get()
        except TimeoutError:
            return None
        if message is None:
            raise RedisConnectionError("lost")
        return message

    def hear(self, kind: str, text: str) -> None:
        if self._server.state == "up":
            self._heard.put_nowait({"type": kind, "data": text.encode()})

    def cut(self) -> None:
        self._server.leave(self)
        self._heard.put_nowait(None)


def _bytes(argument: Argument) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()
