"""The simulation beside the real thing: as many real processes, on real servers, given the very same reads."""

from __future__ import annotations

import asyncio
import math
import re
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from app.embedded.directory import LogDirectory
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.lab.scale.aside import Job
from app.lab.scale.plan import Phase, Plan
from app.lab.scale.workload import Read, schedule
from app.loadtest.counters import postgres_count
from app.loadtest.errors import RequestError, TargetError
from app.loadtest.open_loop import Answer, Endpoint
from app.loadtest.target import Target
from app.settings import Mode

APP_ROLE, COUNTING_ROLE = "app", "loadtest"
TIMEOUT_S = 10.0
AHEAD_S = 0.2
"""Between the end of the preparations and the first read."""
SETTLE_S = 1.0
"""After the last answer, for loads in the background."""
STARTS_AT_A_TIME = 4
SIGMAS = 4.0
"""Of the spread over seeds: one run in 15,000 is farther off by chance."""
TIMING = 0.02
"""The share of all loads by which real processes may differ besides, whose timers and answers are late at times."""

_LOAD_TIME = re.compile(rb"^db_load_duration_seconds_(sum|count) (\S+)$", re.MULTILINE)


def small(*, quick: bool) -> Plan:
    """What a machine of two processors can do with real processes, several lives of a value long."""
    return Plan(
        mode=Mode.FULL,
        replicas=4 if quick else 8,
        keys=20 if quick else 50,
        rate=150.0 if quick else 300.0,
        phases=(Phase("all", 5.0 if quick else 20.0),),
        ttl_s=1.0 if quick else 2.0,
        load_spread=0.0,
        writes_a_s=0.0,
        skew_s=0.0,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """By real processes: loads by PostgreSQL's count, their mean time, reads that failed, and how late one was sent."""

    loads: int
    mean_load_s: float
    reads: int
    failed: int
    latest_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The `measured` run, and the loads of simulations that were given its reads and the mean time of its loads.

    They agree where the real number is within `SIGMAS` of the mean over the simulations, each sigma the spread of one
    more run about that mean, s·√(1 + 1/n), and within `TIMING` of it besides.
    """

    measured: Measured
    simulated: Sequence[int]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.simulated)

    @property
    def margin(self) -> float:
        count = len(self.simulated)
        return SIGMAS * statistics.stdev(self.simulated) * math.sqrt(1 + 1 / count) + TIMING * self.mean

    @property
    def agrees(self) -> bool:
        return abs(self.measured.loads - self.mean) <= self.margin


def alike(plan: Plan, measured: Measured, seed: int, simulations: int) -> list[Job]:
    """The simulations to compare with, each with a seed of its own and the reads of `seed`."""
    plan = replace(plan, load_s=measured.mean_load_s)
    return [Job(plan, seed + 1 + number, reads_seed=seed) for number in range(simulations)]


def measure(plan: Plan, seed: int) -> Measured:
    """The plan's reads carried out by as many real processes, with its TTL and load time.

    Raises `EmbeddedError` where they can't be started, `TargetError` where they can't be asked.
    """
    reads = schedule(plan, seed)
    with ExitStack() as stack:
        logs = stack.enter_context(LogDirectory("lab"))
        servers = stack.enter_context(EmbeddedStack())
        settings = {
            "APP_LOG_LEVEL": "warning",
            "APP_MODE": plan.mode.value,
            "APP_CACHE_TTL_S": f"{plan.ttl_s}",
            "APP_LOAD_DELAY_MS": f"{round(1000 * plan.load_s)}",
            "APP_DATABASE_URL": servers.postgres.url(APP_ROLE),
            "APP_REDIS_URL": servers.redis.url(),
        }
        replicas = [Replica(settings, log=_log(logs, number)) for number in range(plan.replicas)]
        for replica in replicas:
            stack.callback(replica.kill)  # nobody is being served any more, so there is nothing to drain
        replicas[0].start()  # which migrates
        with ThreadPoolExecutor(STARTS_AT_A_TIME, thread_name_prefix="replica") as threads:
            for start in [threads.submit(replica.start) for replica in replicas[1:]]:
                start.result()
        counted = Target(
            replicas[0].http_url,
            database_url=servers.postgres.url(COUNTING_ROLE),
            app_role=APP_ROLE,
            redis_url=servers.redis.url(),
        )
        return asyncio.run(_driven(counted, replicas, reads))


def _log(directory: Path, number: int) -> Path:
    return directory / f"replica-{number}.log"


async def _driven(counted: Target, replicas: Sequence[Replica], reads: Sequence[Read]) -> Measured:
    async with postgres_count(counted) as count:
        assert count is not None  # noqa: S101 - the target has a database
        before = await count.read()
        try:
            answers, mean_load_s = await _drive(replicas, reads)
        except RequestError as error:
            raise TargetError(f"a replica can't be asked ({error.kind})") from error
        return Measured(
            loads=await count.read() - before,
            mean_load_s=mean_load_s,
            reads=len(answers),
            failed=sum(bool(answer.error) for answer in answers),
            latest_s=max(answer.sent - answer.due for answer in answers),
        )


async def _drive(replicas: Sequence[Replica], reads: Sequence[Read]) -> tuple[list[Answer], float]:
    """Every read when it is due, whether or not earlier ones have been answered; and the mean time of a load."""
    places = [urlsplit(replica.http_url) for replica in replicas]
    endpoints = [
        Endpoint(number, place.hostname or "", place.port or 0, timeout_s=TIMEOUT_S)
        for number, place in enumerate(places)
    ]
    try:
        for endpoint in endpoints:
            await endpoint.open(4)
        began = time.monotonic() + AHEAD_S
        async with asyncio.TaskGroup() as group:
            tasks = []
            for read in reads:
                due = began + read.at
                if (pause_s := due - time.monotonic()) > 0:
                    await asyncio.sleep(pause_s)
                tasks.append(group.create_task(endpoints[read.place].get(int(read.key), due)))
        await asyncio.sleep(SETTLE_S)
        pages = [(await endpoint.page(b"/metrics")).body for endpoint in endpoints]
    finally:
        for endpoint in endpoints:
            endpoint.close()
    totals = {b"sum": 0.0, b"count": 0.0}
    for page in pages:
        for name, value in _LOAD_TIME.findall(page):
            totals[name] += float(value)
    return [task.result() for task in tasks], totals[b"sum"] / max(1.0, totals[b"count"])
