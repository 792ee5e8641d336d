"""Database loads, counted twice: by the app's own metrics, and by PostgreSQL, which cannot be fooled by the app."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from prometheus_client.parser import text_string_to_metric_families

from app.loadtest.errors import RequestError, TargetError
from app.loadtest.http import Connection
from app.loadtest.target import Target, without_password
from app.storage.templates import LOAD_MARK

SCRAPE_TIMEOUT_S = 10.0
DATABASE_TIMEOUT_S = 10.0
SETTLE_S = 5.0
"""Longest wait, after the last response, for what is still in flight to be counted."""

_COUNTERS = ("db_hits_total", "singleflight_shared_total", "cache_hits_total", "cache_misses_total")
_READS = "cache_reads_total"

_LOADS_SQL = """
SELECT coalesce(sum(s.calls), 0)::bigint
FROM pg_stat_statements AS s
JOIN pg_roles AS r ON r.oid = s.userid
JOIN pg_database AS d ON d.oid = s.dbid
WHERE r.rolname = $1 AND d.datname = current_database() AND position($2 IN s.query) > 0
"""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of `/metrics`. Counters are summed over their labels, but for `reads`, by source.

    `held` values are kept in the app's own memory, which it forgets when the database says so: `flushes` times until
    now, and only while it is `listening`.
    """

    counters: Mapping[str, float]
    reads: Mapping[str, float]
    in_flight: float
    mode: str
    version: str
    ttl_s: float
    held: int
    flushes: int
    listening: bool


def parse_scrape(text: str) -> Scrape:
    """Raises `TargetError` where `text` is not what the app exposes."""
    sums: dict[str, float] = {}
    reads: dict[str, float] = {}
    info: Mapping[str, str] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
                if sample.name == _READS:
                    source = sample.labels.get("source", "")
                    reads[source] = reads.get(source, 0.0) + sample.value
                elif sample.name == "app_info":
                    info = sample.labels
    except ValueError as error:
        raise TargetError(f"/metrics is malformed: {error}") from error
    for name in (*_COUNTERS, "http_in_flight_requests", "cache_ttl_seconds", "app_info"):
        if name not in sums:
            raise TargetError(f"/metrics has no {name}: is this the app?")
    return Scrape(
        counters={name: sums[name] for name in _COUNTERS},
        reads=reads,
        in_flight=sums["http_in_flight_requests"] + sums.get("grpc_in_flight_requests", 0.0),
        mode=info.get("mode", ""),
        version=info.get("version", ""),
        ttl_s=sums["cache_ttl_seconds"],
        held=int(sums.get("cache_l1_entries", 0)),
        flushes=int(sums.get("cache_flushes_total", 0)),
        listening=sums.get("cache_listen_up") == 1,
    )


async def scrape(target: Target) -> Scrape:
    """Raises `TargetError`."""
    connection = Connection(target.host, target.port, SCRAPE_TIMEOUT_S)
    try:
        response = await connection.get(b"/metrics")
    except RequestError as error:
        raise TargetError(
            f"no app answers at {target.url} ({error.kind}); start one with `python -m app up`, or name it with --url"
        ) from None
    finally:
        connection.close()
    if response.status != 200:
        raise TargetError(f"{target.url}/metrics answers with status {response.status}: is this the app?")
    return parse_scrape(response.body.decode("utf-8", "replace"))


def rises(before: Scrape, after: Scrape) -> Mapping[str, int]:
    """How far each counter rose. Raises `TargetError` where one fell: the app began anew in between."""
    for name, value in before.counters.items():
        if after.counters[name] < value:
            raise TargetError(f"{name} fell during the run: did the app restart?")
    return {name: int(after.counters[name] - value) for name, value in before.counters.items()}


def reads_by_source(before: Scrape, after: Scrape) -> Mapping[str, int]:
    """How far `cache_reads_total` rose, by source."""
    return {source: int(value - before.reads.get(source, 0.0)) for source, value in after.reads.items()}


class PostgresCount:
    """PostgreSQL's own count of the app's load queries, from `pg_stat_statements`."""

    def __init__(self, connection: asyncpg.Connection, target: Target) -> None:
        self._connection = connection
        self._role = target.app_role
        self._place = without_password(target.database_url or "")

    async def read(self) -> int:
        """Load queries that ended well since the statistics were last reset. Raises `TargetError`."""
        try:
            return int(await self._connection.fetchval(_LOADS_SQL, self._role, LOAD_MARK, timeout=DATABASE_TIMEOUT_S))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise _unreadable(self._place, error) from error


@asynccontextmanager
async def postgres_count(target: Target) -> AsyncIterator[PostgresCount | None]:
    """Yields `None` where the target says not to ask PostgreSQL. Raises `TargetError`."""
    if target.database_url is None:
        yield None
        return
    place = without_password(target.database_url)
    try:
        connection = await asyncpg.connect(
            target.database_url,
            timeout=DATABASE_TIMEOUT_S,
            command_timeout=DATABASE_TIMEOUT_S,
            server_settings={"application_name": "loadtest"},
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        raise _unreadable(place, error) from error
    try:
        yield PostgresCount(connection, target)
    finally:
        try:
            await connection.close(timeout=DATABASE_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            connection.terminate()


async def settled(
    target: Target, before: Scrape, count: PostgresCount | None, postgres_before: int
) -> tuple[Scrape, int | None]:
    """The counters once nothing is in flight any more and both counts agree, or as they are after `SETTLE_S`."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        after = await scrape(target)
        loads = await count.read() - postgres_before if count else None
        quiet = after.in_flight <= before.in_flight
        agreed = loads is None or loads == rises(before, after)["db_hits_total"]
        if (quiet and agreed) or time.monotonic() > deadline:
            return after, loads
        await asyncio.sleep(0.05)


def _unreadable(place: str, error: BaseException) -> TargetError:
    words: Iterable[str] = str(error).split()
    why = " ".join(words) or type(error).__name__
    return TargetError(
        f"cannot count loads in PostgreSQL at {place} ({why}); "
        "--database-url names another, --no-postgres goes on without that count"
    )
