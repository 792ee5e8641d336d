"""Replicas that come and go behind one name, under load: the real server, the real client, a name server of ours."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.api.grpc.options import ServerOptions
from app.api.grpc.server import GrpcServer
from app.client.endpoint import Endpoint
from app.client.errors import CallError
from app.client.templates import TemplateClient
from tests.api.grpc.fake_cache import FakeCache, service_over
from tests.client.name_server import NameServer, naming
from tests.faults.polling import until

AGE_S = 1.5
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
CALLERS = 8


def has_many_loopback_addresses() -> bool:
    try:
        socket.create_server((HOSTS[2], 0)).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not has_many_loopback_addresses(),
    reason="replicas on one port need several loopback addresses; macOS has one",
)


@dataclass
class Replicas:
    """On one port, each at an address of its own, with short-lived connections."""

    port: int = 0
    servers: dict[str, GrpcServer] = field(default_factory=dict)
    caches: dict[str, FakeCache] = field(default_factory=dict)

    async def start(self, host: str) -> None:
        cache = self.caches[host] = FakeCache()
        options = ServerOptions(max_connection_age_s=AGE_S)
        server = self.servers[host] = GrpcServer(service_over(cache), host, self.port, options=options)
        self.port = await server.start()
        server.set_serving(True)

    def calls(self) -> Counter[str]:
        return Counter({host: len(cache.asked) for host, cache in self.caches.items()})


@dataclass
class Load:
    """Callers that each call again as soon as they are answered."""

    client: TemplateClient
    answered: int = 0
    failed: list[str] = field(default_factory=list)

    async def call(self) -> None:
        while True:
            try:
                await self.client.get(1, timeout_s=30)
                self.answered += 1
            except CallError as error:
                self.failed.append(str(error))

    async def more(self, calls: int) -> None:
        reached = self.answered
        await until(lambda: self.answered >= reached + calls, f"{calls} more calls", 60)


@asynccontextmanager
async def loaded(replicas: Replicas, names: NameServer, *, retries: bool) -> AsyncIterator[Load]:
    target = f"dns://127.0.0.1:{names.port}/templates.test:{replicas.port}"
    endpoint = Endpoint(target, retries=retries, resolve_interval_s=0.2)
    async with TemplateClient(endpoint) as client:
        load = Load(client)
        callers = [asyncio.create_task(load.call()) for _ in range(CALLERS)]
        try:
            yield load
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    started = Replicas()
    await started.start(HOSTS[0])
    yield started
    await asyncio.gather(*(server.drain(1.0) for server in started.servers.values()))


async def test_from_one_replica_to_three_traffic_spreads_within_the_connections_age_and_no_call_fails(
    replicas: Replicas,
) -> None:
    async with naming(HOSTS[0]) as names, loaded(replicas, names, retries=False) as load:
        await load.more(100)
        assert set(+replicas.calls()) == {HOSTS[0]}
        for host in HOSTS[1:]:
            await replicas.start(host)
        await load.more(100)
        assert set(+replicas.calls()) == {HOSTS[0]}  # running is not being known
        names.addresses = list(HOSTS)
        # A connection's age, which gRPC varies by a tenth, and time to look up and connect; and the machine is busy.
        await until(lambda: len(+replicas.calls()) == 3, "calls to all three", AGE_S * 1.1 + 10)
        before = replicas.calls()
        await load.more(1_500)
        gained = replicas.calls() - before
        assert min(gained[host] for host in HOSTS) > 0.15 * gained.total()
        # Every connection has been told to go several times, and without a second try no call was lost by it.
        await until(lambda: names.queries >= 8, "connections that grow old", 60)
        assert load.failed == []
        assert replicas.calls().total() - load.answered <= CALLERS


async def test_replicas_that_go_take_no_call_with_them(replicas: Replicas) -> None:
    for host in HOSTS[1:]:
        await replicas.start(host)
    async with naming(*HOSTS) as names, loaded(replicas, names, retries=True) as load:
        await until(lambda: len(+replicas.calls()) == 3, "calls to all three", 30)
        for host in HOSTS[1:]:
            names.addresses.remove(host)
            await replicas.servers.pop(host).drain(10)
            await load.more(50)
        before = replicas.calls()
        await load.more(100)
        assert set(replicas.calls() - before) == {HOSTS[0]}
        assert load.failed == []


async def test_a_replica_that_is_gone_without_a_word_is_passed_over(replicas: Replicas) -> None:
    """The name server still has its address, as it may for long after a crash."""
    await replicas.start(HOSTS[1])
    async with naming(*HOSTS[:2]) as names, loaded(replicas, names, retries=True) as load:
        await until(lambda: len(+replicas.calls()) == 2, "calls to both", 30)
        await replicas.servers.pop(HOSTS[1]).drain(0)
        await load.more(200)
        assert load.failed == []


async def test_a_list_of_addresses_is_balanced_over_as_well(replicas: Replicas) -> None:
    await replicas.start(HOSTS[1])
    target = f"ipv4:{HOSTS[0]}:{replicas.port},{HOSTS[1]}:{replicas.port}"
    async with TemplateClient(target) as client:
        await client.get(1)

        async def both() -> bool:
            await client.get(1)
            return len(+replicas.calls()) == 2

        await until(both, "calls to both", 30)
        before = replicas.calls()
        for _ in range(40):
            await client.get(1)
        gained = replicas.calls() - before
        assert min(gained.values()) >= 10
