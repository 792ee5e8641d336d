"""One fetch at a time, stale served meanwhile, failures remembered; on a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from app.loom.schema.cache import FAILURE_TTL_S, MAX_KEPT, TTL_S, SchemaCache
from app.loom.schema.errors import SchemaUnavailableError
from app.loom.schema.schema import Schema


def version(number: int) -> Schema:
    file = FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    file.message_type.add(name="M")
    file.service.add(name="S").method.add(name=f"V{number}", input_type=".a.M", output_type=".a.M")
    return Schema([file])


class Rig:
    def __init__(self) -> None:
        self.now = 0.0
        self.fetches = 0
        self.failures = 0
        self.fails = False
        self.hold: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.cache = SchemaCache(self.fetch, clock=lambda: self.now, on_failure=self.failed)

    def failed(self) -> None:
        self.failures += 1

    async def fetch(self) -> Schema:
        self.fetches += 1
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fails:
            raise SchemaUnavailableError("no reflection")
        return version(self.fetches)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.cache.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_a_hundred_first_callers_make_one_fetch(rig: Rig) -> None:
    rig.hold = asyncio.Event()
    callers = [asyncio.create_task(rig.cache.schema()) for _ in range(100)]
    await rig.begun.wait()
    assert rig.cache.current() is None  # a call does not wait
    rig.hold.set()
    assert {found.hash for found in await asyncio.gather(*callers) if found} == {version(1).hash}
    assert rig.fetches == 1


async def test_a_stale_schema_is_served_while_it_is_fetched_anew(rig: Rig) -> None:
    first = await rig.cache.schema()
    rig.now = TTL_S - 1
    assert rig.cache.current() is first
    await rig.settle()
    assert rig.fetches == 1
    rig.now, rig.hold = TTL_S, asyncio.Event()
    assert rig.cache.current() is first
    assert await rig.cache.schema() is first
    rig.hold.set()
    await rig.settle()
    assert rig.fetches == 2
    newer = rig.cache.current()
    assert newer is not first
    assert first is not None
    assert rig.cache.by_hash(first.hash) is first  # what was recorded under it is still read rightly


async def test_a_failure_is_remembered_for_a_while_and_then_tried_again(rig: Rig) -> None:
    rig.fails = True
    for _ in range(50):
        assert await rig.cache.schema() is None
        assert rig.cache.current() is None
        await rig.settle()
    assert (rig.fetches, rig.failures, rig.cache.problem) == (1, 1, "no reflection")
    rig.now, rig.fails = FAILURE_TTL_S, False
    assert await rig.cache.schema() is not None
    assert (rig.fetches, rig.cache.problem) == (2, "")


async def test_a_failure_to_renew_keeps_what_was_known(rig: Rig) -> None:
    first = await rig.cache.schema()
    rig.now, rig.fails = TTL_S, True
    assert rig.cache.current() is first
    await rig.settle()
    assert rig.fetches == 2
    assert rig.cache.current() is first


async def test_a_backend_that_returned_is_asked_again(rig: Rig) -> None:
    await rig.cache.schema()
    rig.cache.backend_returned()
    rig.cache.current()
    await rig.settle()
    assert rig.fetches == 2


async def test_an_unknown_method_is_asked_for_once_in_a_while_not_at_each_call(rig: Rig) -> None:
    await rig.cache.schema()
    for number in range(20):
        rig.cache.current("/a.S/V1" if number % 2 else "/a.S/V2")
        await rig.settle()
    assert rig.fetches == 1
    rig.now = FAILURE_TTL_S
    rig.cache.current("/a.S/V2")
    await rig.settle()
    assert rig.fetches == 2
    known = rig.cache.current("/a.S/V2")
    assert known is not None
    assert known.method("/a.S/V2") is not None


async def test_a_bounded_number_of_schemas_is_kept(rig: Rig) -> None:
    kept = [version(number) for number in range(MAX_KEPT + 3)]
    for schema in kept:
        rig.cache.keep(schema)
    assert [rig.cache.by_hash(schema.hash) is schema for schema in kept] == [False] * 3 + [True] * MAX_KEPT


async def test_closing_ends_a_fetch_that_hangs(rig: Rig) -> None:
    rig.hold = asyncio.Event()
    waiting = asyncio.create_task(rig.cache.schema())
    rig.cache.current()
    await rig.begun.wait()
    await rig.cache.aclose()
    assert await waiting is None
