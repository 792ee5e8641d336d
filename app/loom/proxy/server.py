"""The proxy: accepts clients, gives each a backend connection of its own, and stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
from collections.abc import Callable
from typing import Final

from app.concurrency.breaker import CircuitBreaker
from app.concurrency.tasks import TaskSet
from app.loom.call import Ending, Headers
from app.loom.proxy.backlog import Backlog
from app.loom.proxy.connection import Connection
from app.loom.proxy.encrypted import EncryptedServer
from app.loom.proxy.events import ProxyEvents
from app.loom.proxy.framing import Budget
from app.loom.proxy.intercept import Interceptor
from app.loom.proxy.interception import Interception
from app.loom.proxy.legs import Leg
from app.loom.proxy.limits import Limits
from app.loom.proxy.link import GuardedUpstream
from app.loom.proxy.live import Peer
from app.loom.proxy.relay import Relay
from app.loom.proxy.upstream import Upstream

_log = logging.getLogger(__name__)

BACKLOG: Final = 1024
LOOK_INTERVAL_S: Final = 0.05
"""How often, while it stops, it looks which connections have become idle."""
IDLE_S: Final = 0.5
"""How long a connection that was asked to go must be without calls before it is closed: for streams that the client
opened before the GOAWAY reached it. Clients close by themselves, and sooner."""
LAST_BYTES_S: Final = 1.0
"""What closing may take, after which connections are aborted."""


class Proxy:
    """Clients on one side, `upstream` on the other; what happens is told to `events`."""

    def __init__(
        self,
        upstream: Upstream,
        events: ProxyEvents,
        *,
        limits: Limits | None = None,
        breaker: CircuitBreaker | None = None,
        interception: Interception | None = None,
        authority: str | None = None,
    ) -> None:
        """`authority` takes the place of every call's `:authority`. `breaker` is by default one of its own."""
        self._upstream = GuardedUpstream(upstream, breaker or CircuitBreaker())
        self._interception = interception
        self._authority = None if authority is None else authority.encode()
        self._events = events
        self._limits = limits or Limits()
        self._budget = Budget(self._limits.messages_bytes)
        self._backlog = Backlog()
        self._calls = itertools.count(1)
        self._numbers = itertools.count(1)
        self._connections: set[Connection] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._dials = TaskSet(limit=self._limits.connections)
        self._holds = TaskSet(limit=self._limits.holds)
        self._server: asyncio.Server | None = None
        self._encrypted: EncryptedServer | None = None

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._connections)

    async def start(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen; returns the port, which the system chose where it was 0. Raises `OSError`."""
        if tls is not None:
            self._encrypted = EncryptedServer(tls, self._make_leg, self._events.refused, self._limits)
            return await self._encrypted.start(host, port, BACKLOG)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make_leg, host, port, backlog=BACKLOG)
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    def catch_up(self) -> None:
        """Tell `events` of all that has passed until now; else that takes up to `backlog.DELAY_S`."""
        self._backlog.read()

    def switch_lanes(self) -> None:
        """Interception is wanted now, or no longer: connections that are in the other lane are asked to go."""
        wanted = self._is_interception_wanted()
        for connection in self._connections:
            if connection.is_intercepted is not None and connection.is_intercepted != wanted:
                connection.ask_to_go()

    async def stop(self, timeout_s: float) -> None:
        """Accept no more, ask the clients to go, and wait until their calls are done, at most `timeout_s` seconds.

        What is not done by then is cut.
        """
        if self._server is not None:
            self._server.close()
        if self._encrypted is not None:
            await self._encrypted.aclose()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        for connection in list(self._connections):
            connection.stop()
        idle_since: dict[Connection, float] = {}
        while self._connections and loop.time() < ends_at:
            for connection in list(self._connections):
                if not connection.is_idle:
                    idle_since.pop(connection, None)
                elif loop.time() - idle_since.setdefault(connection, loop.time()) >= IDLE_S:
                    connection.close()
            await asyncio.sleep(min(LOOK_INTERVAL_S, max(0.0, ends_at - loop.time())))
        await self._cut()
        await self._dials.aclose(LAST_BYTES_S)
        await self._holds.aclose(LAST_BYTES_S)

    async def _cut(self) -> None:
        cut = list(self._connections)
        if cut:
            _log.warning("%d connections did not end in time, and are cut", len(cut))
        for end in (Connection.close, Connection.abort):
            for connection in cut:
                end(connection)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), LAST_BYTES_S)

    def _make_leg(self) -> Leg:
        """For a client that connects. It counts once it has: a TLS handshake may still fail."""
        return Connection(
            next(self._numbers),
            self._upstream,
            self._events,
            self._limits,
            self._dials,
            self._backlog,
            make_relay=self._relay,
            make_lane=self._lane,
            is_interception_wanted=self._is_interception_wanted,
            on_accepted=self._accepted,
            on_closed=self._closed,
        ).client

    def _accepted(self, connection: Connection) -> bool:
        has_room = len(self._connections) < self._limits.connections
        self._connections.add(connection)
        self._all_gone.clear()
        return has_room

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    def _relay(self, number: int, peer: str, on_blinded: Callable[[], None]) -> Relay:
        return Relay(
            Peer(number, peer),
            self._events,
            limits=self._limits,
            calls=self._calls,
            budget=self._budget,
            on_blinded=on_blinded,
        )

    def _is_interception_wanted(self) -> bool:
        return self._authority is not None or (self._interception is not None and self._interception.is_active)

    def _lane(
        self,
        relay: Relay,
        to_client: Callable[[bytes], None],
        to_backend: Callable[[bytes], None] | None,
        on_broken: Callable[[Ending, str], None],
        answer: Headers,
    ) -> Interceptor:
        return Interceptor(
            relay,
            to_client,
            to_backend,
            limits=self._limits,
            budget=self._budget,
            holds=self._holds,
            interception=self._interception,
            authority=self._authority,
            answer=answer,
            on_broken=on_broken,
        )
