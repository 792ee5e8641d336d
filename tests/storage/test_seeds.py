from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import asyncpg

from app.domain.template import TemplateDraft
from app.storage.migrate import migrate
from app.storage.postgres import Connection
from app.storage.templates import TemplateRepository
from tests.storage.conftest import OpenDatabase

_DIGEST = "SELECT md5(string_agg(id || name || body || version || updated_at, '' ORDER BY id)) FROM templates"


async def test_there_are_a_thousand_with_ids_1_to_1000_that_the_domain_allows(repository: TemplateRepository) -> None:
    seeds = await repository.page(0, 2000)
    assert [seed.id for seed in seeds] == list(range(1, 1001))
    for seed in seeds:
        TemplateDraft(seed.name, seed.body)
        assert seed.version == 1
        assert seed.body.startswith("Subject: ")
        assert seed.body.count("{{") == seed.body.count("}}") > 2
    assert len({seed.name for seed in seeds}) == len({seed.body for seed in seeds}) == 1000


async def test_bodies_are_spread_evenly_over_the_scale_from_200_bytes_to_8_kilobytes(
    repository: TemplateRepository,
) -> None:
    sizes = [len(seed.body.encode()) for seed in await repository.page(0, 2000)]
    assert 200 <= min(sizes) < 300
    assert 7_500 < max(sizes) <= 8_192
    octaves = Counter(int(math.log2(size / 200)) for size in sizes)
    assert all(octaves[octave] > 100 for octave in range(5)), octaves


async def test_they_are_the_same_in_every_database(empty_database: Callable[[], str], admin: Connection) -> None:
    url = empty_database()
    await migrate(url)
    other = await asyncpg.connect(url)
    try:
        # Neither the session's time zone nor the database's settings may show in them.
        await other.execute("SET timezone = 'Asia/Kathmandu'")
        await other.execute("SET jit = off")
        await admin.execute("SET timezone = 'Asia/Kathmandu'")
        assert await other.fetchval(_DIGEST) == await admin.fetchval(_DIGEST)
    finally:
        await other.close(timeout=2.0)


async def test_the_next_template_follows_the_seeds(
    fresh_database: Callable[[], str], open_database: OpenDatabase
) -> None:
    repository = TemplateRepository(await open_database(fresh_database()))
    assert (await repository.create(TemplateDraft("after the seeds", ""))).answer.id == 1001
