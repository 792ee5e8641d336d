"""A name server that hangs, fails or changes its mind, held by events."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app.concurrency.resolver import FRESH_S, Resolver
from tests.faults.polling import until


class NameServer:
    """Answers a lookup when it may go on."""

    def __init__(self) -> None:
        self.lookups = 0
        self.answer: list[str] | OSError = ["10.0.0.1"]
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, host: str, port: None, *, type: int) -> list[tuple[Any, ...]]:  # noqa: A002
        self.lookups += 1
        assert self.go_on.wait(20)
        if isinstance(self.answer, OSError):
            raise self.answer
        return [(socket.AF_INET, type, 0, "", (address, 0)) for address in self.answer]


@pytest.fixture
def names() -> Iterator[NameServer]:
    names = NameServer()
    yield names
    names.go_on.set()


async def test_a_lookup_that_hangs_is_one_lookup_however_many_wait_and_give_up(names: NameServer) -> None:
    resolver = Resolver(names)
    names.go_on.clear()
    for _ in range(50):
        waiting = [asyncio.create_task(resolver.addresses("redis")) for _ in range(4)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*waiting, return_exceptions=True)
        )
    last = asyncio.create_task(resolver.addresses("redis"))
    await asyncio.sleep(0)
    names.go_on.set()
    assert await last == ["10.0.0.1"]
    assert names.lookups == 1


async def test_known_addresses_are_used_fresh_without_asking_and_later_where_the_answer_is_slow(
    names: NameServer,
) -> None:
    now = 0.0
    resolver = Resolver(names, clock=lambda: now)
    assert await resolver.addresses("redis") == await resolver.addresses("redis") == ["10.0.0.1"]
    assert names.lookups == 1
    now = FRESH_S
    names.answer = ["10.0.0.2", "10.0.0.3", "10.0.0.2"]
    names.go_on.clear()
    assert await resolver.addresses("redis") == ["10.0.0.1"]
    names.go_on.set()

    async def is_new() -> bool:
        return await resolver.addresses("redis") == ["10.0.0.2", "10.0.0.3"]

    await until(is_new, "the slow answer is used once it has come")
    assert names.lookups == 2


async def test_a_name_that_is_gone_is_gone_and_a_server_that_cannot_tell_leaves_what_is_known(
    names: NameServer,
) -> None:
    now = 0.0
    resolver = Resolver(names, clock=lambda: now)
    names.answer = socket.gaierror(socket.EAI_AGAIN, "try again")
    with pytest.raises(socket.gaierror, match="try again"):
        await resolver.addresses("redis")
    names.answer = ["10.0.0.1"]
    await resolver.addresses("redis")
    now = FRESH_S
    names.answer = socket.gaierror(socket.EAI_AGAIN, "try again")
    assert await resolver.addresses("redis") == ["10.0.0.1"]
    names.answer = socket.gaierror(socket.EAI_NONAME, "not known")

    async def is_gone() -> bool:
        try:
            await resolver.addresses("redis")
        except socket.gaierror as error:
            return error.errno == socket.EAI_NONAME
        return False

    await until(is_gone, "the answer is used once it has come")


async def test_addresses_are_not_looked_up_and_what_can_be_no_name_is_refused(names: NameServer) -> None:
    resolver = Resolver(names)
    for literal in ("127.0.0.1", "::1", "fe80::1%eth0"):
        assert await resolver.addresses(literal) == [literal]
    assert names.lookups == 0
    with pytest.raises(OSError, match="no name"):
        await Resolver().addresses("a" * 70 + ".example")


async def test_names_do_not_wait_for_each_other(names: NameServer) -> None:
    resolver = Resolver(names)
    names.go_on.clear()
    hanging = asyncio.create_task(resolver.addresses("slow"))
    await until(lambda: names.lookups == 1, "the lookup is under way")
    assert await Resolver().addresses("localhost")
    assert not hanging.done()
    names.go_on.set()
    assert await hanging == ["10.0.0.1"]
