"""The L2 tier: entries, leases and floors in Redis, shared by all replicas. Redis may be slow or gone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from app.cache import scripts
from app.cache.cluster import ClusterClient, ShardUnavailableError
from app.cache.entry import FORMAT, CorruptEntryError, Entry, decode, encode
from app.cache.events import CacheEvents, Operation
from app.concurrency.breaker import BreakerOpenError, BreakerState, CircuitBreaker
from app.concurrency.fair_timeout import FairTimeout

T = TypeVar("T")

FAILURES = (RedisError, OSError, TimeoutError)
"""What a Redis that is gone, slow or broken raises; anything else is a bug."""
SWEEP_BATCH = 500
PATIENCE = 4
"""Timeouts that an operation waits for its turn, before it begins."""


def counts_as_failure(error: BaseException) -> bool:
    """Whether the breaker should count `error`: an answer, even an error, proves that the link works.

    So does the loss of one shard of a cluster, whose client says it only while others work, and stops asking by itself.
    """
    return isinstance(error, FAILURES) and not isinstance(error, ResponseError | ShardUnavailableError)


class Grant(Enum):
    """What came of asking for a key's value or else its lease."""

    HIT = "hit"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Taken:
    """`entry` is the fresh value with `HIT`, and else one to fall back on, if any.

    `remaining_s` is, with `LOST`, how long the other may hold the lease.
    """

    grant: Grant
    entry: Entry | None
    remaining_s: float = 0.0


class Stored(Enum):
    """What came of putting a value."""

    STORED = "stored"
    FENCED = "fenced"
    PAST = "past"
    UNAVAILABLE = "unavailable"


class RemoteCache:
    """Entries by key. No method raises for what is wrong with Redis: it is counted, and the answer says so.

    At most `concurrent` operations are under way at a time; the client must have as many connections.
    `life_s` is how long an entry of a given TTL is kept, `lease_s` how long a lease is held at most, and `floor_s` how
    long an invalidation is remembered, which must outlast any load begun before it.
    """

    def __init__(
        self,
        client: Redis | ClusterClient,
        *,
        prefix: str,
        breaker: CircuitBreaker,
        timeout_s: float,
        events: CacheEvents,
        concurrent: int = 16,
        lease_s: float = 10.0,
        floor_s: float = 60.0,
        kept_past_expiry_s: float = 0.0,
    ) -> None:
        self._client = client
        self._prefix = f"{prefix}:{FORMAT}"
        self._breaker = breaker
        self._timeout_s = timeout_s
        self._events = events
        self._turns = asyncio.Semaphore(concurrent)
        self.lease_s = lease_s
        self._lease_ms = round(lease_s * 1000)
        self._floor_ms = round(floor_s * 1000)
        self._kept_past_expiry_s = kept_past_expiry_s
        self.channel = f"{self._prefix}:wake"
        self._discard = client.register_script(scripts.DISCARD)
        self._take = client.register_script(scripts.TAKE)
        self._put = client.register_script(scripts.PUT)
        self._release = client.register_script(scripts.RELEASE)
        self._invalidate = client.register_script(scripts.INVALIDATE)
        self._note = client.register_script(scripts.NOTE)
        self._revoke = client.register_script(scripts.REVOKE)

    @property
    def is_available(self) -> bool:
        """Whether Redis is being asked at all."""
        return self._breaker.state is BreakerState.CLOSED

    def names(self, key: str) -> tuple[str, str, str]:
        """The names in Redis of a key's value, lease and floor. The braces make the key a cluster's hash tag."""
        value = f"{self._prefix}:{{{key}}}"
        return value, f"{value}:lease", f"{value}:floor"

    async def get(self, key: str) -> Entry | None:
        """The stored entry, fresh or not; `None` where there is none, or none that can be had or read."""
        data = await self._attempt("get", lambda: self._client.get(self.names(key)[0]))
        return await self._decoded(key, data) if isinstance(data, bytes) else None

    async def take(
        self, key: str, token: str, *, now: float, newer_than: float = 0.0, least_version: int = 0
    ) -> Taken | None:
        """The value, if fresh at `now`, created after `newer_than` and not below `least_version`; else try the lease.

        One round trip. `None` where Redis can't be asked.
        """
        arguments: list[bytes | float | int | str] = [token, self._lease_ms, now, newer_than, least_version]
        for _ in range(2):
            answer = await self._attempt("take", lambda: self._take(keys=self.names(key), args=arguments))
            if answer is None:
                return None
            grant = Grant(_text(answer[0]))
            entry = await self._decoded(key, answer[1]) if answer[1] else None
            if grant is not Grant.HIT or entry is not None:
                return Taken(grant, entry, max(0, answer[2]) / 1000 if grant is Grant.LOST else 0.0)
            # It looked fresh, could not be read, and has been removed: now there is none.
        return None

    async def put(self, key: str, entry: Entry, token: str = "") -> Stored:
        """Store `entry` and wake who waits for it; with a `token`, only while that holds the lease, which it ends."""
        life_ms = max(1, round((entry.ttl_s + self._kept_past_expiry_s) * 1000))
        arguments: list[bytes | float | int | str] = [token, entry.version, encode(entry), life_ms, self.channel, key]
        answer = await self._attempt("put", lambda: self._put(keys=self.names(key), args=arguments))
        return Stored.UNAVAILABLE if answer is None else Stored(_text(answer))

    async def release(self, *leases: tuple[str, str]) -> bool:
        """Give leases back, each of a key and by its token, where they are still held, and wake who waits for them.

        One round trip; of a cluster, one for each. Whether Redis took all.
        """
        if isinstance(self._client, ClusterClient):
            return all(await asyncio.gather(*(self._release_together([lease]) for lease in leases)))
        return await self._release_together(leases)

    async def _release_together(self, leases: Sequence[tuple[str, str]]) -> bool:
        names = [self.names(key)[1] for key, _ in leases]
        arguments = [self.channel, *(word for key, token in leases for word in (token, key))]
        # It is worth the wait for its turn for as long as it is of use: a lease that is not given back bars its key.
        released = partial(self._release, keys=names, args=arguments)
        return await self._attempt("release", released, self._lease_ms / 1000) is not None

    async def invalidate(self, key: str, version: int) -> bool:
        """From now on nothing of `key` below `version` is stored. Whether Redis took it."""
        return await self._attempt("invalidate", lambda: self._run_invalidate(key, version)) is not None

    async def remove(self, key: str) -> bool:
        """Remove the value of `key`, if there is one; what is known of its version stays. Whether Redis took it."""
        return await self._attempt("invalidate", lambda: self._client.unlink(self.names(key)[0].encode())) is not None

    async def note(self, name: str, text: str) -> None:
        """Write a word of this cache's own, which is no key's; it is lost where Redis can't take it."""
        await self._attempt("put", lambda: self._note(keys=[f"{self._prefix}:{name}"], args=[text]))

    async def noted(self, name: str) -> str | None:
        """The word that was written; `None` where there is none, or it can't be had."""
        data = await self._attempt("get", lambda: self._client.get(f"{self._prefix}:{name}"))
        return data.decode(errors="replace") if isinstance(data, bytes) else None

    async def probe(self, invalidations: list[tuple[str, int]], *, sweep: bool) -> bool:
        """One try whether Redis is back, for which the breaker lets one caller by: it takes the invalidations first.

        With `sweep`, every value under the prefix goes, and every lease, since which of them are past is not known.
        Whether all was done; unless it was, the breaker does not close. Invalidations that only a lost shard of a
        cluster has yet to take keep nobody from the others' keys: it closes then, though not all was done.
        """
        missed = False
        try:
            with self._breaker.guard():
                try:
                    await self._within(self._client.ping())
                    if sweep:
                        await self._sweep()
                    for key, version in invalidations:
                        try:
                            await self._within(self._run_invalidate(key, version))
                        except ShardUnavailableError:
                            missed = True
                except (ResponseError, ShardUnavailableError) as error:
                    # The link works, but Redis must not be read again before it has taken what it is told here.
                    raise RedisError(f"Redis refused a part of its recovery: {error}") from error
        except BreakerOpenError:
            return False
        except FAILURES:
            self._events.failed("invalidate")
            return False
        return not missed

    async def answers(self) -> bool:
        """Whether Redis answers now; asked without regard to the breaker, whose state this does not change."""
        try:
            await self._within(self._client.ping())
        except FAILURES:
            return False
        return True

    async def aclose(self) -> None:
        await self._client.aclose()

    def _run_invalidate(self, key: str, version: int) -> Awaitable[Any]:
        arguments: list[bytes | float | int | str] = [version, self._floor_ms, self.channel, key]
        return self._invalidate(keys=self.names(key), args=arguments)

    async def _sweep(self) -> None:
        """Values are removed, and leases ended, lest their holders put what they began to load before now."""
        batch: list[bytes] = []
        names = self._client.scan_iter(match=f"{_literal(self._prefix)}:{{*", count=SWEEP_BATCH)
        while (name := await self._within(anext(names, None))) is not None:
            if name.endswith(b"}"):
                batch.append(name)
            elif name.endswith(b"}:lease"):
                key = name[len(self._prefix.encode()) + 2 : -len(b"}:lease")]
                await self._within(self._revoke(keys=[name], args=[self.channel, key]))
            if len(batch) >= SWEEP_BATCH:
                await self._within(self._client.unlink(*batch))
                batch.clear()
        if batch:
            await self._within(self._client.unlink(*batch))

    async def _within(self, command: Awaitable[T]) -> T:
        async with FairTimeout(self._timeout_s):
            return await command

    async def _attempt(
        self, operation: Operation, command: Callable[[], Awaitable[T]], patience_s: float | None = None
    ) -> T | None:
        """The command's answer within the timeout, or `None`, counted, where Redis failed to give one.

        While the breaker is not closed nothing is asked: finding out whether Redis is back is `probe`'s part. The wait
        for a turn is none of the breaker's business: where very many keys are read at once it is this process that is
        slow, and Redis that would be blamed.
        """
        if not self.is_available:
            return None
        try:
            async with asyncio.timeout(PATIENCE * self._timeout_s if patience_s is None else patience_s):
                await self._turns.acquire()
        except TimeoutError:
            self._events.failed(operation)
            return None
        try:
            if self._breaker.state is not BreakerState.CLOSED:
                return None  # as those in front have found out
            with self._breaker.guard():
                return await self._within(command())
        except FAILURES:
            self._events.failed(operation)
            return None
        finally:
            self._turns.release()

    async def _decoded(self, key: str, data: bytes) -> Entry | None:
        """The entry, or `None` where the bytes are none.

        Those are removed: what stands where its version should could bar its place to all that follow.
        """
        try:
            return decode(data)
        except CorruptEntryError:
            self._events.failed("decode")
        await self._attempt("put", lambda: self._discard(keys=[self.names(key)[0]], args=[data]))
        return None


def _text(answer: bytes | str) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer


def _literal(text: str) -> str:
    """The pattern, for SCAN, of just this text."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
