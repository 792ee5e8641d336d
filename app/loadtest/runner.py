"""Sends a plan's requests to a target and keeps the log."""

from __future__ import annotations

import asyncio
import itertools
import re
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from app.loadtest.caches import empty_caches
from app.loadtest.counters import postgres_count, reads_by_source, rises, scrape, settled
from app.loadtest.errors import RequestError, TargetError
from app.loadtest.http import Connection, Response
from app.loadtest.log import SPREAD, Counted, RunLog, Sample
from app.loadtest.plan import MAX_REQUESTS, Plan
from app.loadtest.progress import RunProgress, Silent
from app.loadtest.target import Target

SOURCES = frozenset({"l1", "l2", "origin", "shared", "stale"})
SPARE_FILES = 64
PROGRESS_EVERY = 20
PAUSE_S = 0.05
"""A worker's rest after a request without a response, so that an app that is gone is not asked in a busy loop."""

_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*(\d+)\s*[,}]')


async def run(plan: Plan, target: Target, progress: RunProgress) -> RunLog:
    """Runs `plan` against `target`: caches emptied (unless the plan keeps them), counters read before and after.

    Requests that fail are in the log; raises `TargetError` where there is nothing to send them to, or where the
    counters, the caches or PostgreSQL cannot be reached.
    """
    allow_files(plan.concurrency + SPARE_FILES)
    before = await scrape(target)
    async with postgres_count(target) as count:
        if not plan.keep_caches:
            await empty_caches(target)
        before = await scrape(target)
        postgres_before = await count.read() if count else 0
        connections = [Connection(target.host, target.port, plan.timeout_s) for _ in range(plan.concurrency)]
        try:
            await _open(connections, target)
            started_at = datetime.now(UTC)
            samples = await _send(plan, connections, progress)
        finally:
            for connection in connections:
                connection.close()
        after, loads = await settled(target, before, count, postgres_before)
    risen = rises(before, after)
    return RunLog(
        plan=plan,
        url=target.url,
        mode=after.mode,
        version=after.version,
        ttl_s=after.ttl_s,
        started_at=started_at,
        samples=samples,
        counted=Counted(
            db_loads=risen["db_hits_total"],
            shared=risen["singleflight_shared_total"],
            hits=risen["cache_hits_total"],
            misses=risen["cache_misses_total"],
            reads_by_source=reads_by_source(before, after),
            db_loads_by_postgres=loads,
        ),
    )


async def _send(plan: Plan, connections: list[Connection], progress: RunProgress) -> list[Sample]:
    samples: list[Sample] = []
    if plan.duration_s is not None:
        await _sustain(plan, connections, plan.duration_s, progress, samples)
        return samples
    progress.begin(f"{plan.waves:,} waves of {plan.concurrency:,}", plan.waves)
    for wave, key in enumerate(plan.wave_keys(), start=1):
        samples += await asyncio.gather(*(_ask(connection, key, wave) for connection in connections))
        progress.advance(1)
    if plan.spread:
        progress.begin(f"{plan.spread:,} reads over {plan.ids:,} ids", plan.spread)
        keys = itertools.islice(plan.spread_keys(), plan.spread)
        await asyncio.gather(*(_work(connection, keys, progress, samples) for connection in connections))
    return samples


async def _work(connection: Connection, keys: Iterator[int], progress: RunProgress, samples: list[Sample]) -> None:
    """Asks for keys from the common supply until it is empty."""
    sent = 0
    for key in keys:
        sample = await _ask(connection, key, SPREAD)
        samples.append(sample)
        if not sample.status:
            await asyncio.sleep(PAUSE_S)
        sent += 1
        if sent == PROGRESS_EVERY:
            progress.advance(sent)
            sent = 0
    progress.advance(sent)


async def _sustain(
    plan: Plan, connections: list[Connection], seconds: float, progress: RunProgress, samples: list[Sample]
) -> None:
    progress.begin(f"reads over {plan.ids:,} ids for {seconds:g} s", seconds)
    begun = time.monotonic()
    end = begun + seconds

    def keys() -> Iterator[int]:
        reported = begun
        for key in itertools.islice(plan.spread_keys(), MAX_REQUESTS):
            now = time.monotonic()
            if now >= end:
                break
            if now - reported >= 0.25:
                progress.advance(now - reported)
                reported = now
            yield key
        progress.advance(max(0.0, end - reported))

    supply = keys()
    by_the_clock = Silent()
    await asyncio.gather(*(_work(connection, supply, by_the_clock, samples) for connection in connections))


async def _ask(connection: Connection, key: int, phase: int) -> Sample:
    start = time.monotonic()
    try:
        response = await connection.get(b"/template-details?id=%d" % key)
    except RequestError as error:
        return Sample(key, phase, start, time.monotonic(), 0, "", error.kind)
    return Sample(key, phase, start, response.end, response.status, response.source, _fault(response, key))


def _fault(response: Response, key: int) -> str:
    """What is wrong with a response, in a few stable words; empty where nothing is."""
    if response.status != 200:
        return f"status {response.status}"
    if response.source not in SOURCES:
        return "no known X-Cache"
    found = _ID_FIRST.match(response.body)
    if found is None or int(found[1]) != key:
        return "another template's body"
    return ""


async def _open(connections: list[Connection], target: Target) -> None:
    outcomes = await asyncio.gather(*(connection.open() for connection in connections), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, RequestError):
            raise TargetError(f"cannot open {len(connections):,} connections to {target.url}: {outcome.kind}")
        if outcome is not None:
            raise outcome


def allow_files(needed: int, flag: str = "--concurrency") -> None:
    """Let this process have so many files open. Raises `TargetError`, which names `flag`, where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TargetError(f"{flag} needs {needed:,} open files, and this system allows {hard:,}: see ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
