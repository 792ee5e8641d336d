"""Sends a plan's requests to a target and keeps the log."""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from app.loadtest.caches import empty_caches
from app.loadtest.counters import postgres_count, reads_by_source, rises, scrape, settled
from app.loadtest.errors import RequestError, TargetError
from app.loadtest.grpc import GrpcReader
from app.loadtest.http import HttpReader
from app.loadtest.log import SPREAD, Counted, RunLog, Sample
from app.loadtest.plan import MAX_REQUESTS, Plan
from app.loadtest.progress import RunProgress, Silent
from app.loadtest.reader import Reader
from app.loadtest.target import Target

SPARE_FILES = 64
PROGRESS_EVERY = 20
PAUSE_S = 0.05
"""A worker's rest after a request without a response, so that an app that is gone is not asked in a busy loop."""


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
        readers = [_reader(plan, target) for _ in range(plan.concurrency)]
        try:
            await _open(readers, target)
            started_at = datetime.now(UTC)
            samples = await _send(plan, readers, progress)
        finally:
            await asyncio.gather(*(reader.close() for reader in readers))
        after, loads = await settled(target, before, count, postgres_before)
    risen = rises(before, after)
    return RunLog(
        plan=plan,
        url=target.reads,
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


def _reader(plan: Plan, target: Target) -> Reader:
    if target.grpc_target is not None:
        return GrpcReader(target.grpc_target, plan.timeout_s)
    return HttpReader(target.host, target.port, plan.timeout_s)


async def _send(plan: Plan, readers: list[Reader], progress: RunProgress) -> list[Sample]:
    samples: list[Sample] = []
    if plan.duration_s is not None:
        await _sustain(plan, readers, plan.duration_s, progress, samples)
        return samples
    progress.begin(f"{plan.waves:,} waves of {plan.concurrency:,}", plan.waves)
    for wave, key in enumerate(plan.wave_keys(), start=1):
        samples += await asyncio.gather(*(_ask(reader, key, wave) for reader in readers))
        progress.advance(1)
    if plan.spread:
        progress.begin(f"{plan.spread:,} reads over {plan.ids:,} ids", plan.spread)
        keys = itertools.islice(plan.spread_keys(), plan.spread)
        await asyncio.gather(*(_work(reader, keys, progress, samples) for reader in readers))
    return samples


async def _work(reader: Reader, keys: Iterator[int], progress: RunProgress, samples: list[Sample]) -> None:
    """Asks for keys from the common supply until it is empty."""
    sent = 0
    for key in keys:
        sample = await _ask(reader, key, SPREAD)
        samples.append(sample)
        if not sample.status:
            await asyncio.sleep(PAUSE_S)
        sent += 1
        if sent == PROGRESS_EVERY:
            progress.advance(sent)
            sent = 0
    progress.advance(sent)


async def _sustain(
    plan: Plan, readers: list[Reader], seconds: float, progress: RunProgress, samples: list[Sample]
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
    await asyncio.gather(*(_work(reader, supply, by_the_clock, samples) for reader in readers))


async def _ask(reader: Reader, key: int, phase: int) -> Sample:
    start = time.monotonic()
    try:
        reply = await reader.read(key)
    except RequestError as error:
        return Sample(key, phase, start, time.monotonic(), 0, "", error.kind)
    return Sample(key, phase, start, reply.end, reply.status, reply.source, reply.fault)


async def _open(readers: list[Reader], target: Target) -> None:
    outcomes = await asyncio.gather(*(reader.open() for reader in readers), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, RequestError):
            raise TargetError(f"cannot open {len(readers):,} connections to {target.reads}: {outcome.kind}")
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
