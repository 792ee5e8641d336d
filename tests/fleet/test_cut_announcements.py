"""The connections on which the database announces changes are cut again and again for five seconds."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

import pytest

from tests.fleet.conftest import SIZE
from tests.fleet.database import FleetDatabase
from tests.fleet.fleet import Answer, Fleet

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = 50
CHANGED_LAST = 10
CUT_S = 5.0
RATE = 200.0
GRACE_S = 1.0
"""APP_COHERENCE_GRACE_S."""
READING_S = 0.4
"""What a load and its answer may take on a busy machine, unless one has taken longer: a value may be that much older
than the grace alone allows."""


async def test_a_gap_in_the_announcements_is_bounded_and_then_costs_only_what_changed(
    fleet: Fleet, database: FleetDatabase, cold_keys: Iterator[int]
) -> None:
    await fleet.delay(0)
    keys = list(itertools.islice(cold_keys, KEYS))
    await fleet.read(keys)
    at = time.monotonic() + 0.1
    driven = [
        asyncio.create_task(worker.drive(keys, rate=RATE, seconds=CUT_S + 5.0, at=at)) for worker in fleet.workers
    ]
    writes: list[tuple[float, int, int]] = []

    async def write(key: int) -> None:
        version = await database.rewrite(key, "new")
        writes.append((time.monotonic(), key, version))

    await asyncio.sleep(0.6)
    cut = 0
    cut_until = time.monotonic() + CUT_S
    rotation = itertools.cycle(keys)
    fewest_up = float(SIZE)
    while time.monotonic() < cut_until - 0.2:
        cut += await database.cut_feeds()
        await write(next(rotation))
        fewest_up = min(fewest_up, await fleet.total("cache_listen_up"))
        await asyncio.sleep(0.02)
    assert cut >= SIZE
    assert fewest_up < SIZE
    last = keys[:CHANGED_LAST]
    for key in last:
        cut += await database.cut_feeds()
        await write(key)
    while time.monotonic() < cut_until:
        cut += await database.cut_feeds()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(5):
        while await fleet.total("cache_listen_up") < SIZE:  # noqa: ASYNC110 - what it asks is other processes
            await asyncio.sleep(0.01)
    up_at, before = time.monotonic(), await database.loads()
    by_worker = await asyncio.gather(*driven)
    answers = [answer for worker in by_worker for answer in worker]
    after = {load.key for load in fleet.told.loads if load.began > up_at}
    loads = await database.loads() - before
    mine = [(load.began, load.ended) for load in fleet.told.loads if load.key in keys and load.ended is not None]
    across = sum(began <= up_at < ended for began, ended in mine)
    reading_s = max(READING_S, *(ended - began for began, ended in mine))
    # Without what a worker that could not run has added by that.
    oldest_s = max(
        max(_ages(each, writes)) - worker.held_up_s for each, worker in zip(by_worker, fleet.workers, strict=True)
    )
    print(
        f"{len(writes)} writes, {cut} connections cut; after the return {loads} loads "
        f"of {len(after)} keys; greatest age of an answer {1000 * oldest_s:.0f} ms"
    )
    assert {answer.error for answer in answers} == {""}
    assert oldest_s <= GRACE_S + reading_s
    assert after <= set(last)
    assert loads <= CHANGED_LAST + across
    newest = {key: version for _, key, version in writes}
    for worker in await fleet.read(keys):
        assert {answer.key: answer.version for answer in worker} == {key: newest.get(key, 1) for key in keys}


def _ages(answers: list[Answer], writes: list[tuple[float, int, int]]) -> Iterator[float]:
    """For each answer, for how long what it said had been past when it was asked for; 0 where it was not."""
    replaced: dict[tuple[int, int], float] = {}
    for at, key, version in writes:
        replaced[key, version - 1] = at
    for answer in answers:
        since = replaced.get((answer.key, answer.version))
        yield 0.0 if since is None else max(0.0, answer.asked - since)
