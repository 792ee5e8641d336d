"""Emptying the app's caches, so that a run begins cold."""

from __future__ import annotations

import asyncio
import time

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.loadtest.counters import scrape
from app.loadtest.errors import TargetError
from app.loadtest.target import Target, without_password
from app.storage.announcements import CHANNEL, FLUSH

REDIS_TIMEOUT_S = 5.0
DATABASE_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 5.0
"""How long the app may take to do what the database has told it."""
BATCH = 1_000


async def empty_caches(target: Target) -> None:
    """Empties Redis of the app's keys, then the memory of the app and of all that listen to the same database.

    What is read meanwhile may stay: the app is to be idle. Raises `TargetError`.
    """
    await empty_redis(target)
    await empty_memory(target)


async def empty_memory(target: Target) -> None:
    """Has the database tell all replicas to forget what they hold; waits until this one has. Raises `TargetError`."""
    before = await scrape(target)
    if not before.listening:
        if before.held:
            raise _kept(before.held, "it does not listen to the database, which alone could tell it to forget them")
        return
    if target.database_url is None:
        if before.held:
            raise _kept(before.held, "without PostgreSQL it can't be told to forget them")
        return
    await _notify(target.database_url)
    deadline = time.monotonic() + FLUSH_TIMEOUT_S
    while True:
        now = await scrape(target)
        if now.flushes > before.flushes and not now.held:
            return
        if time.monotonic() > deadline:
            why = "it is not idle" if now.flushes > before.flushes else "does it use the database that was told?"
            raise _kept(now.held, why)
        await asyncio.sleep(0.01)


async def _notify(database_url: str) -> None:
    try:
        connection = await asyncpg.connect(
            database_url, timeout=DATABASE_TIMEOUT_S, server_settings={"application_name": "loadtest"}
        )
        try:
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, FLUSH, timeout=DATABASE_TIMEOUT_S)
        finally:
            await connection.close(timeout=DATABASE_TIMEOUT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise TargetError(
            f"cannot have the app's memory emptied by PostgreSQL at {without_password(database_url)} ({why}); "
            "--database-url names another, --keep-caches leaves it as it is"
        ) from error


def _kept(held: int, why: str) -> TargetError:
    return TargetError(
        f"the app still holds {held:,} values in its memory: {why}; --keep-caches goes on with what it has"
    )


async def empty_redis(target: Target) -> int:
    """Removes the app's keys from Redis, and no others; returns how many. Raises `TargetError`.

    A key that is written meanwhile may stay.
    """
    removed = 0
    try:
        async with Redis.from_url(
            target.redis_url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
        ) as redis:
            batch: list[bytes] = []
            async for key in redis.scan_iter(match=f"{target.key_prefix}:*", count=BATCH):
                batch.append(key)
                if len(batch) == BATCH:
                    removed += await redis.unlink(*batch)
                    batch.clear()
            if batch:
                removed += await redis.unlink(*batch)
    except (RedisError, OSError) as error:
        why = " ".join(str(error).split())
        raise TargetError(
            f"cannot empty the caches in Redis at {without_password(target.redis_url)} ({why}); "
            "--redis-url names another, --keep-caches leaves them as they are"
        ) from error
    return removed
