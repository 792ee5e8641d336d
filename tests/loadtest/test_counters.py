from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from app.embedded.stack import EmbeddedStack
from app.loadtest import counters
from app.loadtest.counters import parse_scrape, postgres_count, reads_by_source, rises, scrape, settled
from app.loadtest.errors import TargetError
from app.loadtest.target import Target
from app.storage.postgres import Database
from app.storage.templates import TemplateRepository
from app.telemetry.metrics import Metrics
from tests.loadtest.fake_app import FakeApp


@pytest.fixture
def counted(stack: EmbeddedStack, fresh_database: Callable[[], str]) -> tuple[str, Target]:
    """A migrated database's URL for role `app`, and the target by which role `loadtest` counts there."""
    url = fresh_database()
    return url, Target(database_url=url.replace("//app@", "//loadtest@"))


async def load(url: str, times: int, *, delay_ms: int = 0) -> None:
    database = await Database.connect(
        url,
        pool_min=1,
        pool_max=5,
        connect_timeout_s=5,
        acquire_timeout_s=5,
        statement_timeout_s=5,
        start_timeout_s=5,
        application_name="test",
    )
    try:
        repository = TemplateRepository(database, delay_ms)
        await asyncio.gather(*(repository.get(n) for n in range(1, times + 1)))
        await repository.page(0, 10)
    finally:
        await database.close(5)


async def test_postgres_counts_each_load_of_the_app_once_and_nothing_else(counted: tuple[str, Target]) -> None:
    url, target = counted
    async with postgres_count(target) as count:
        assert count is not None
        before = await count.read()
        await load(url, 12)
        assert await count.read() - before == 12


async def test_loads_of_another_role_are_not_the_apps(counted: tuple[str, Target]) -> None:
    url, target = counted
    async with postgres_count(target) as count:
        assert count is not None
        before = await count.read()
        await load(url.replace("//app@", "//unprotected@"), 3)
        assert await count.read() == before


async def test_loads_in_another_database_are_not_the_apps(
    counted: tuple[str, Target], fresh_database: Callable[[], str]
) -> None:
    _, target = counted
    async with postgres_count(target) as count:
        assert count is not None
        await load(fresh_database(), 3)
        assert await count.read() == 0


async def test_the_app_can_count_its_own_loads(counted: tuple[str, Target]) -> None:
    url, _ = counted
    await load(url, 4)
    async with postgres_count(Target(database_url=url)) as count:
        assert count is not None
        assert await count.read() == 4


async def test_a_load_that_was_cancelled_is_not_counted(counted: tuple[str, Target]) -> None:
    url, target = counted
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await load(url, 2, delay_ms=4_000)
    async with postgres_count(target) as count:
        assert count is not None
        assert await count.read() == 0


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://loadtest:secret@127.0.0.1:1/app",
        "postgresql://nobody:secret@{place}/app",
        "postgresql://app@{place}/no",
    ],
)
async def test_a_database_that_cannot_be_asked_is_said_in_one_line_with_the_way_out(
    stack: EmbeddedStack, url: str
) -> None:
    target = Target(database_url=url.format(place=f"127.0.0.1:{stack.postgres.port}"))
    with pytest.raises(TargetError, match=r"--database-url.*--no-postgres") as caught:
        async with postgres_count(target):
            pass
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_database_without_the_statistics_is_said_in_the_same_way(stack: EmbeddedStack) -> None:
    async with postgres_count(Target(database_url=stack.postgres.url("loadtest", "postgres"))) as count:
        assert count is not None
        with pytest.raises(TargetError, match=r"pg_stat_statements.*--no-postgres"):
            await count.read()


async def test_without_a_database_url_nothing_is_asked() -> None:
    async with postgres_count(Target(database_url=None)) as count:
        assert count is None


def test_the_real_metrics_are_understood_from_the_start() -> None:
    body = b"".join(Metrics(mode="mutex", version="1.2", ttl_s=2.5).exposition("")[0])
    seen = parse_scrape(body.decode())
    assert (seen.mode, seen.version, seen.ttl_s, seen.in_flight) == ("mutex", "1.2", 2.5, 0)
    assert set(seen.counters.values()) == {0}
    assert seen.reads["origin"] == 0


async def test_rises_are_differences_and_labels_are_summed() -> None:
    async with FakeApp() as app:
        before = await scrape(app.target)
        app.loads += 5
        app.counts.update({"l2": 3, "origin": 5})
        after = await scrape(app.target)
    assert rises(before, after) == {
        "db_hits_total": 5,
        "singleflight_shared_total": 0,
        "cache_hits_total": 3,
        "cache_misses_total": 5,
    }
    assert reads_by_source(before, after) == {"l2": 3, "origin": 5}


async def test_a_count_that_comes_a_moment_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeApp() as app:
        before = await scrape(app.target)
        app.loads = 4

        class Late:
            answers = iter([102, 103, 104])

            async def read(self) -> int:
                return next(self.answers)

        after, loads = await settled(app.target, before, Late(), 100)  # type: ignore[arg-type]
    assert loads == rises(before, after)["db_hits_total"] == 4


async def test_counts_that_never_agree_are_given_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "SETTLE_S", 0.1)
    async with FakeApp() as app:
        before = await scrape(app.target)
        app.loads = 4

        class Wrong:
            async def read(self) -> int:
                return 105

        after, loads = await settled(app.target, before, Wrong(), 100)  # type: ignore[arg-type]
    assert (loads, rises(before, after)["db_hits_total"]) == (5, 4)


async def test_a_complaint_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise asyncpg.TooManyConnectionsError("sorry,\ntoo many clients already")

    monkeypatch.setattr(asyncpg, "connect", refuse)
    with pytest.raises(TargetError, match=r"\(sorry, too many clients already\)"):
        async with postgres_count(Target()):
            pass
