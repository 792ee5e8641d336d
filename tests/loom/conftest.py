"""A real client, the proxy and a real backend, with every byte remembered on both sides of the proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import uvloop

from app.concurrency.breaker import CircuitBreaker
from app.loom.call import Direction, Headers
from app.loom.proxy.interception import CallInterception, Interception
from app.loom.proxy.limits import Limits
from app.loom.proxy.server import Proxy
from app.loom.proxy.upstream import Upstream
from tests.loom.account import WAIT_S, Account
from tests.loom.backend import Backend
from tests.loom.wiretap import Wiretap

UNLIMITED = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
    ("grpc.absolute_max_metadata_size", 1 << 20),
]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Front:
    """A proxy that runs in front of `port`."""

    proxy: Proxy
    port: int
    account: Account


@asynccontextmanager
async def proxied(
    backend_port: int,
    limits: Limits | None = None,
    *,
    behind_tls: ssl.SSLContext | None = None,
    front_tls: ssl.SSLContext | None = None,
    breaker: CircuitBreaker | None = None,
    interception: Interception | None = None,
    authority: str | None = None,
) -> AsyncIterator[Front]:
    """The proxy in front of a port of this machine."""
    account = Account()
    upstream = Upstream("127.0.0.1", backend_port, timeout_s=5, handshake_s=5, tls=behind_tls)
    proxy = Proxy(upstream, account, limits=limits, breaker=breaker, interception=interception, authority=authority)
    port = await proxy.start("127.0.0.1", 0, tls=front_tls)
    try:
        yield Front(proxy, port, account)
    finally:
        await proxy.stop(0)
    assert proxy.connections == 0
    assert not account.faults
    assert all(call.ended for call in account.calls.values())


@asynccontextmanager
async def serving(
    backend: Backend, *, port: int = 0, options: list[tuple[str, int]] | None = None, compression: Any = None
) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    server = grpc.aio.server(options=[*UNLIMITED, *(options or [])], compression=compression)
    server.add_generic_rpc_handlers((backend,))
    listening = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server, listening
    finally:
        await server.stop(0)


@dataclass
class Path:
    """From `channel` through the proxy to `backend`."""

    channel: grpc.aio.Channel
    account: Account
    backend: Backend
    server: grpc.aio.Server
    front: Front
    before: Wiretap
    behind: Wiretap

    async def assert_unchanged(self) -> None:
        """Every byte of either direction has come out as it went in."""

        def sides() -> list[tuple[list[bytes], list[bytes]]]:
            return [
                (
                    [bytes(tapped.sent) for tapped in tap.connections],
                    [bytes(tapped.received) for tapped in tap.connections],
                )
                for tap in (self.before, self.behind)
            ]

        # Who sends last is not known, so the last bytes may still be on their way.
        ends_at = asyncio.get_running_loop().time() + WAIT_S
        before, behind = sides()
        while before != behind and asyncio.get_running_loop().time() < ends_at:
            await asyncio.sleep(0.01)
            before, behind = sides()
        assert before == behind
        assert any(before[0])


class Untouched:
    """Has every connection intercepted, and changes nothing."""

    is_active = True

    def for_call(self, call: int | None, method: str) -> CallInterception | None:
        return None


class Read(Untouched):
    """Has every message of every call shown to it, and changes none: what a rule does that finds nothing to change."""

    hold = abort = None

    def for_call(self, call: int | None, method: str) -> CallInterception | None:
        return self

    def headers(self, direction: Direction, headers: Headers) -> Headers:
        return headers

    def rewrites(self, direction: Direction) -> bool:
        return True

    def message(self, direction: Direction, data: bytes) -> bytes | None:
        return None

    def left(self, direction: Direction, why: str) -> None:
        pass


@asynccontextmanager
async def path(
    limits: Limits | None = None,
    server_options: list[tuple[str, int]] | None = None,
    compression: Any = None,
    interception: Interception | None = None,
) -> AsyncIterator[Path]:
    """Checks at its end that nothing was beyond decoding, and in the relay lane that not a byte was changed."""
    backend = Backend()
    async with (
        serving(backend, options=server_options, compression=compression) as (server, port),
        Wiretap(port) as behind,
        proxied(behind.port, limits, interception=interception) as front,
        Wiretap(front.port) as before,
    ):
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{before.port}", options=[*UNLIMITED, ("grpc.enable_retries", 0)]
        ) as channel:
            found = Path(channel, front.account, backend, server, front, before, behind)
            yield found
            if interception is None:
                await found.assert_unchanged()
        told = {what for what in front.account.counts if what.startswith(("blinded", "un", "refused", "dial f"))}
        assert not told


LANES: dict[str, Interception | None] = {"relay": None, "intercept": Untouched(), "rewriting": Read()}


@pytest.fixture(params=LANES)
def interception(request: pytest.FixtureRequest) -> Interception | None:
    """What takes a connection into each of the lanes, and changes nothing."""
    return LANES[request.param]


@pytest.fixture
async def through(interception: Interception | None) -> AsyncIterator[Path]:
    async with path(interception=interception) as made:
        yield made
