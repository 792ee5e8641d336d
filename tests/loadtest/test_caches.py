from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from app.loadtest import caches
from app.loadtest.caches import BATCH, empty_memory, empty_redis
from app.loadtest.errors import TargetError
from app.loadtest.target import Target
from tests.loadtest.fake_app import FakeApp


async def test_the_apps_keys_go_and_all_others_stay(redis_url: str) -> None:
    ours = [f"template:v1:{n}" for n in range(2 * BATCH + 7)]
    others = ["templates:1", "template", "unprotected:v1:1", "xtemplate:v1:1"]
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await redis.mset(dict.fromkeys([*ours, *others], "x"))
        assert await empty_redis(Target(redis_url=redis_url)) == len(ours)
        assert sorted(await redis.keys("*")) == sorted(others)
    assert await empty_redis(Target(redis_url=redis_url)) == 0


async def test_an_unreachable_redis_is_said_in_one_line_without_its_password() -> None:
    with pytest.raises(TargetError, match=r"redis://:\*\*\*@127.0.0.1:1/0.*--redis-url.*--keep-caches") as caught:
        await empty_redis(Target(redis_url="redis://:secret@127.0.0.1:1/0"))
    assert "\n" not in str(caught.value)


METRICS = (
    "db_hits_total 1\nsingleflight_shared_total 0\ncache_hits_total 0\ncache_misses_total 0\n"
    'http_in_flight_requests 0\ncache_ttl_seconds 30\napp_info{{mode="full",version="1"}} 1\n'
    "cache_l1_entries {held}\ncache_listen_up {listening}\ncache_flushes_total {flushes}\n"
)


def said(*, held: int, listening: str, flushes: int = 3) -> str:
    return METRICS.format(held=held, listening=listening, flushes=flushes)


@pytest.mark.parametrize("listening", ["0", "NaN"])
async def test_memory_that_nobody_can_have_emptied_is_said_rather_than_measured(listening: str) -> None:
    async with FakeApp(metrics=said(held=1234, listening=listening)) as app:
        with pytest.raises(TargetError, match=r"holds 1,234 values.*does not listen.*--keep-caches"):
            await empty_memory(app.target)
    async with FakeApp(metrics=said(held=0, listening=listening)) as app:
        await empty_memory(app.target)


async def test_without_postgres_only_an_app_that_holds_nothing_can_be_begun_with() -> None:
    async with FakeApp(metrics=said(held=5, listening="1")) as app:
        with pytest.raises(TargetError, match=r"holds 5 values.*without PostgreSQL"):
            await empty_memory(app.target)
    async with FakeApp(metrics=said(held=0, listening="1")) as app:
        await empty_memory(app.target)


async def test_an_app_that_does_not_hear_is_waited_for_no_longer_than_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "FLUSH_TIMEOUT_S", 1.0)
    async with FakeApp(metrics=said(held=5, listening="1")) as app:
        with pytest.raises(TargetError, match=r"holds 5 values.*the database that was told"):
            await empty_memory(replace(app.target, database_url=database_url))
        assert app.scrapes > 2


async def test_a_database_that_cannot_be_reached_is_said_in_one_line_without_its_password() -> None:
    async with FakeApp(metrics=said(held=5, listening="1")) as app:
        target = replace(app.target, database_url="postgresql://loadtest:secret@127.0.0.1:1/app")
        with pytest.raises(TargetError, match=r"loadtest:\*\*\*@127.0.0.1:1/app.*--database-url") as caught:
            await empty_memory(target)
        assert "\n" not in str(caught.value)
