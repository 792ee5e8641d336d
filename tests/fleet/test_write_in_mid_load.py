"""A write is committed while the old value is being loaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from app.cache.entry import FORMAT, decode
from tests.fleet.conftest import PREFIX, SIZE
from tests.fleet.database import FleetDatabase
from tests.fleet.fleet import BARRIER_S, Answer, Fleet

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLERS = 100
LOAD_MS = 2_000
"""Far more than the write may take to be committed, and far less than the lease."""
ROUNDS = 2
WATCHED_S = 2.5


@pytest.mark.parametrize("by", ["another program", "another replica"])
async def test_what_a_write_has_made_past_is_neither_stored_nor_served(
    by: str, fleet: Fleet, database: FleetDatabase, redis: Redis, cold_keys: Iterator[int]
) -> None:
    await fleet.delay(LOAD_MS)
    for _ in range(ROUNDS):
        key, before = next(cold_keys), await database.loads()
        waited = await fleet.total("cache_lease_total", end="waited")
        waiting = asyncio.create_task(fleet.read([key], callers=CALLERS))
        at = time.monotonic() + BARRIER_S + 0.05
        later = [
            asyncio.create_task(worker.drive([key], rate=100, seconds=WATCHED_S, at=at)) for worker in fleet.workers
        ]
        stored = asyncio.create_task(_stored_versions(redis, key, at + WATCHED_S))
        first = await fleet.told.until_loading(key)
        await database.until_under_way(1)
        async with asyncio.timeout(LOAD_MS / 1_000):
            while await fleet.total("cache_lease_total", end="waited") < waited + SIZE - 1:  # noqa: ASYNC110 - others' state
                await asyncio.sleep(0.002)
        if by == "another program":
            version = await database.rewrite(key, "new")
            written_at = time.monotonic()
        else:
            writer = fleet.workers[(first.worker + 1) % SIZE]
            said = await writer.call("write", key=key, body="new")
            version, written_at = said["version"], said["at"]
        assert first.ended is None, "the write came too late to be in mid-load"
        seen = {each.worker: each.at for each in await fleet.told.until_seen(key, version, range(SIZE))}
        answers = [answer for worker in await waiting for answer in worker]
        assert {answer.error for answer in answers} == {""}
        assert first.version is not None
        assert first.version < version, "the load was to bring the old value"
        for number, driven in enumerate(await asyncio.gather(*later)):
            assert {answer.error for answer in driven} == {""}
            assert _older(driven, asked_after=seen[number], than=version) == []
        assert [each for each in await stored if each[1] < version and each[0] > min(seen.values()) + 0.050] == []
        assert await database.loads() - before <= 2
        after = [answer for worker in await fleet.read([key]) for answer in worker]
        assert {answer.version for answer in after} == {version}
        print(f"seen by all {1000 * (max(seen.values()) - written_at):.1f} ms after the write was acknowledged")


def _older(answers: list[Answer], *, asked_after: float, than: int) -> list[Answer]:
    return [answer for answer in answers if answer.asked > asked_after and answer.version < than]


async def _stored_versions(redis: Redis, key: int, until: float) -> list[tuple[float, int]]:
    """What Redis holds, look by look: when it was asked for, and its version."""
    found = []
    while (now := time.monotonic()) < until:
        data = await redis.get(f"{PREFIX}:{FORMAT}:{{{key}}}")
        if isinstance(data, bytes):
            found.append((now, decode(data).version))
        await asyncio.sleep(0.002)
    return found
