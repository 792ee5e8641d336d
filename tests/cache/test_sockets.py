"""Redis by name: its addresses in turn, and a name server that hangs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from app.cache.connection import connect
from app.concurrency import resolver as resolver_module
from app.concurrency.resolver import Resolver
from app.embedded.stack import EmbeddedStack

Names = Callable[..., list[tuple[Any, ...]]]


def answering(monkeypatch: pytest.MonkeyPatch, lookup: Names) -> None:
    monkeypatch.setattr(Resolver.__init__, "__defaults__", (lookup,))
    assert resolver_module.Resolver()._lookup is lookup


def named(stack: EmbeddedStack) -> Redis:
    client = connect(f"redis://redis.example:{stack.redis.port}/0", connections=4, timeout_s=0.25)
    assert isinstance(client, Redis)
    return client


async def test_each_address_of_the_name_is_tried_until_one_answers(
    stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda *_, **__: [(0, 0, 0, "", (a, 0)) for a in ("127.0.0.2", "::1", "127.0.0.1")])
    async with named(stack) as client:
        assert await client.ping()


async def test_no_address_that_answers_is_an_error_of_the_connection(
    stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    for lookup in (unknown, lambda *_, **__: [], lambda *_, **__: [(0, 0, 0, "", ("127.0.0.2", 0))]):
        answering(monkeypatch, lookup)
        async with named(stack) as client:
            with pytest.raises((OSError, ConnectionError, Exception), match=r"redis\.example|127\.0\.0\.2"):
                await client.ping()


async def test_a_name_server_that_hangs_holds_up_no_other_lookup_of_the_loop(
    stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's own lookups have a handful of threads: hung ones of Redis would keep PostgreSQL from connecting."""
    go_on, lookups = threading.Event(), []

    def hanging(host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        lookups.append(host)
        assert go_on.wait(60)
        return []

    answering(monkeypatch, hanging)
    client = named(stack)
    try:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await client.ping()
        async with asyncio.timeout(20):
            assert await asyncio.get_running_loop().getaddrinfo("localhost", 1)
        assert lookups == ["redis.example"]
    finally:
        go_on.set()
        await client.aclose()
