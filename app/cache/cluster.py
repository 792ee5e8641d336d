"""A Redis Cluster, asked as if it were one Redis: each command goes to the primary that has its key."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.cache.slots import Address, SlotMap, newest
from app.concurrency.breaker import BreakerOpenError, BreakerState, CircuitBreaker
from app.concurrency.fair_timeout import FairTimeout

T = TypeVar("T")
Argument = bytes | float | int | str

_logger = logging.getLogger(__name__)

LINK_FAILURES = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError, ClusterDownError)
"""What a node that is gone, slow, or cut off from the others raises or answers."""
CALM_S = 1.0
"""How often the cluster's shape is looked at where nothing is amiss."""
FIRST_RETRY_S, MOST_RETRY_S = 0.05, 0.5
"""And where something is."""
ASKED = 8
"""Nodes that are asked for it at a time."""


class ShardUnavailableError(RedisError):
    """The node that has the key can't be asked now; others can."""


class ClusterClient:
    """As much of `redis.asyncio.Redis` as the cache needs, on a cluster that is found by any of `seeds`.

    Each primary has a breaker of its own, so that the loss of one costs its own keys only: after `failures` in a row
    nothing is asked of it until a task of this object's own has had an answer, which tries every `open_s` seconds. The
    same task follows the cluster's shape: it looks every `CALM_S` seconds, and often while something is amiss.
    A command follows one redirection and no more. What it can't do raises `ShardUnavailableError`, or, where no primary
    can be asked, redis-py's `ConnectionError`; both within `timeout_s`, twice that where it was redirected.

    While a slot is moved between nodes by hand, scripts on its keys may be refused (TRYAGAIN, a `ResponseError`).

    `connect` makes the client of one node, with connections for all that may be under way at a time. `on_change` is
    called when a primary was lost or replaced: what it would have said is not said by another.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        connect: Callable[[Address], Redis],
        *,
        timeout_s: float,
        failures: int,
        open_s: float,
    ) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._failures = failures
        self._open_s = open_s
        self._seeds = frozenset(seeds)
        self._nodes = {address: self._made(address) for address in seeds}
        self._map: SlotMap | None = None
        self._found = asyncio.Event()
        self._suspected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._turns = itertools.count(random.randrange(1000))
        self.on_change: Callable[[], None] = lambda: None

    def register_script(self, text: str) -> ClusterScript:
        """The script, to be called with keys that share a hash tag."""
        return ClusterScript(self, text)

    async def get(self, name: str) -> Any:
        return await self.call(name, "GET", name)

    async def call(self, key: bytes | str, *command: Argument) -> Any:
        """The answer of the primary that has `key`."""
        node = self._node((await self._shape()).primary(_slot(key)))
        try:
            return await self._ask(node, lambda client: client.execute_command(*command))
        except MovedError as moved:
            self._suspected.set()
            there = self._node(_redirected(moved, node))
            redirected = self._ask(there, lambda client: client.execute_command(*command))
        except AskError as asked:
            redirected = self._ask(self._node(_redirected(asked, node)), lambda client: _asking(client, command))
        try:
            return await redirected
        except AskError as again:
            raise ShardUnavailableError(f"redirected twice, to {again}") from again

    async def ping(self) -> bool:
        """True, where any primary answers: the keys of the others are no worse off than without this one."""
        primaries = (await self._shape()).primaries
        if not any(await asyncio.gather(*(self._answers(self._node(address)) for address in primaries))):
            raise RedisConnectionError("no primary of the cluster answers")
        return True

    async def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:
        """The names of all primaries. Raises before the first where one of them can't be asked."""
        shape = await self._shape()
        nodes = [self._node(address) for address in shape.primaries]
        if not shape.is_complete or not all(await asyncio.gather(*(self._answers(node) for node in nodes))):
            raise ShardUnavailableError("not every primary of the cluster can be asked")
        for node in nodes:
            cursor: int | None = None
            while cursor != 0:
                cursor, names = await self._ask(node, partial(_scanned, cursor=cursor or 0, match=match, count=count))
                for name in names:
                    yield name

    async def unlink(self, *names: bytes) -> int:
        """Removes them, wherever they are; how many there were."""
        shape = await self._shape()
        by_address: dict[Address | None, list[bytes]] = defaultdict(list)
        for name in names:
            by_address[shape.primary(_slot(name))].append(name)
        removed = 0
        for address, some in by_address.items():
            removed += sum(await self._ask(self._node(address), partial(_unlinked, names=some)))
        return removed

    def pubsub(self) -> PubSub:
        """A subscription at one of the nodes, another one each time: what is published anywhere reaches all of them."""
        addresses = sorted(self._map.primaries if self._map is not None else self._seeds)
        well = [one for one in addresses if self._node(one).breaker.state is BreakerState.CLOSED]
        self._watched()
        among = well or addresses
        client: Redis = self._node(among[next(self._turns) % len(among)]).client
        return client.pubsub()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(node.client.aclose() for node in self._nodes.values()))

    async def _shape(self) -> SlotMap:
        self._watched()
        if self._map is None:
            async with FairTimeout(self._timeout_s):
                await self._found.wait()
        assert self._map is not None  # noqa: S101 - it is never forgotten
        return self._map

    def _watched(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="redis-cluster")

    def _made(self, address: Address) -> _Node:
        def changed(old: BreakerState, new: BreakerState) -> None:
            if new is BreakerState.CLOSED:
                _logger.warning("Redis node %s:%s is back", *address)
            elif old is BreakerState.CLOSED:
                _logger.warning("Redis node %s:%s is lost", *address)
                self.on_change()

        breaker = CircuitBreaker(
            failures=self._failures,
            open_s=self._open_s,
            counts=lambda error: isinstance(error, LINK_FAILURES),
            on_change=changed,
        )
        return _Node(address, self._connect(address), breaker)

    def _node(self, address: Address | None) -> _Node:
        if address is None:
            self._suspected.set()
            raise ShardUnavailableError("no node has the key's slot")
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._made(address)
        return node

    async def _ask(self, node: _Node, run: Callable[[Any], Awaitable[T]]) -> T:
        """What `run` answers of this node. Raises as the class says, or `ResponseError`."""
        if node.breaker.state is not BreakerState.CLOSED:
            raise self._gone(node)
        try:
            with node.breaker.guard():
                async with FairTimeout(self._timeout_s):
                    return await run(node.client)
        except LINK_FAILURES as error:
            self._suspected.set()
            raise self._gone(node) from error

    def _gone(self, node: _Node) -> RedisError:
        others = () if self._map is None else self._map.primaries - {node.address}
        if any(self._node(one).breaker.state is BreakerState.CLOSED for one in others):
            return ShardUnavailableError(f"{node.name} can't be asked")
        return RedisConnectionError(f"{node.name} can't be asked, nor can any other primary")

    async def _answers(self, node: _Node) -> bool:
        try:
            await self._ask(node, lambda client: client.ping())
        except RedisError:
            return False
        return True

    async def _watch(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            self._suspected.clear()
            try:
                is_well = await self._look()
            except Exception:
                # This task's end would leave what is gone gone for ever.
                _logger.exception("looking at the cluster failed; it is looked at again")
                is_well = False
            if not is_well:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, MOST_RETRY_S)
                continue
            retry_s = FIRST_RETRY_S
            await asyncio.sleep(FIRST_RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CALM_S):
                    await self._suspected.wait()

    async def _look(self) -> bool:
        """Take up the cluster's shape, and try its primaries. Whether all is as it should be."""
        asked = random.sample(list(self._nodes.values()), min(ASKED, len(self._nodes)))
        shape = newest(await asyncio.gather(*(self._told(node) for node in asked)), self._map)
        if shape is None:
            return False
        before, self._map = self._map, shape
        self._found.set()
        if before is not None and shape.moved_from(before):
            _logger.warning("the cluster's keys have moved between its nodes")
            self.on_change()
        primaries = [self._node(address) for address in shape.primaries]
        for address in shape.nodes:
            self._node(address)
        answered = await asyncio.gather(*(self._probe(node) for node in primaries))
        await self._forget(self._nodes.keys() - shape.nodes - self._seeds)
        return shape.is_complete and all(answered)

    async def _told(self, node: _Node) -> SlotMap | None:
        try:
            async with FairTimeout(self._timeout_s):
                slots = await node.client.execute_command("CLUSTER", "SLOTS")
                info = await node.client.execute_command("CLUSTER", "INFO")
            return SlotMap.parse(slots, info, node.address)
        except (*LINK_FAILURES, ResponseError, ValueError) as error:
            _logger.debug("%s tells nothing about its cluster: %s", node.name, error)
            return None

    async def _probe(self, node: _Node) -> bool:
        """Whether it answers; counted by its breaker, so that a loss is noticed where nothing is asked of it, too."""
        with contextlib.suppress(BreakerOpenError, *LINK_FAILURES), node.breaker.guard():
            async with FairTimeout(self._timeout_s):
                await node.client.ping()
            return True
        return False

    async def _forget(self, addresses: Iterable[Address]) -> None:
        for address in list(addresses):
            node = self._nodes.pop(address)
            with contextlib.suppress(*LINK_FAILURES):
                async with FairTimeout(self._timeout_s):
                    await node.client.aclose()


class ClusterScript:
    """A script that is sent by its hash, and in full to a node that does not know it."""

    def __init__(self, client: ClusterClient, text: str) -> None:
        self._client = client
        self._text = text
        self._hash = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[bytes | str], args: Sequence[Argument]) -> Any:
        try:
            return await self._client.call(keys[0], "EVALSHA", self._hash, len(keys), *keys, *args)
        except NoScriptError:
            return await self._client.call(keys[0], "EVAL", self._text, len(keys), *keys, *args)


class _Node:
    """One node: its client, and the breaker on it, which opens as long as it is primary of something."""

    def __init__(self, address: Address, client: Any, breaker: CircuitBreaker) -> None:
        self.address = address
        self.client = client
        self.breaker = breaker

    @property
    def name(self) -> str:
        return f"Redis node {self.address[0]}:{self.address[1]}"


def _slot(key: bytes | str) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)


def _redirected(error: AskError, asked: _Node) -> Address:
    return error.host or asked.address[0], error.port


async def _asking(client: Any, command: Sequence[Argument]) -> Any:
    """The answer of a node that takes the slot over, which must be told first, on the same connection."""
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("ASKING")
    pipeline.execute_command(*command)
    return (await pipeline.execute())[1]


async def _scanned(client: Any, *, cursor: int, match: str, count: int) -> tuple[int, list[bytes]]:
    following, names = await client.scan(cursor, match=match, count=count)
    return int(following), names


async def _unlinked(client: Any, *, names: Sequence[bytes]) -> list[int]:
    """One command a name: names of different slots can't be in one."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.unlink(name)
    removed: list[int] = await pipeline.execute()
    return removed
