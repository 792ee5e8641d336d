"""The whole service in process, on a real PostgreSQL and a real Valkey."""

from __future__ import annotations

import asyncio
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from app.bootstrap.runtime import running
from app.embedded.postgres import EmbeddedPostgres
from app.service import MAX_PAGE
from app.settings import Settings
from tests.api.http.conformance import conforms
from tests.api.http.problem import problem_of

Start = Callable[..., Awaitable[httpx.AsyncClient]]
BODY = {"name": "new", "body": "newer"}


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """Call it with a database and settings for a client of a running service, whose answers must be as described."""
    async with AsyncExitStack() as services:

        async def make(database_url: str, **settings: object) -> httpx.AsyncClient:
            wanted = {"database_url": database_url, "redis_url": redis_url, "drain_timeout_s": 2, **settings}
            runtime = await services.enter_async_context(running(Settings.model_validate(wanted)))
            transport = httpx.ASGITransport(runtime.http_app)
            return await services.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://app", event_hooks={"response": [conforms]})
            )

        yield make


@pytest.fixture
async def client(start: Start, database_url: str) -> httpx.AsyncClient:
    return await start(database_url)


def _at(template_id: int) -> str:
    return f"/template-details?id={template_id}"


async def test_the_pages_hold_each_of_the_1_000_seeds_exactly_once(
    start: Start, fresh_database: Callable[[], str]
) -> None:
    client = await start(fresh_database())
    for limit in (MAX_PAGE, 37):
        seen: list[int] = []
        following: str | None = f"/templates?limit={limit}"
        while following is not None:
            page = (await client.get(following)).json()
            seen += [item["id"] for item in page["items"]]
            following = page["next"]
        assert seen == list(range(1, 1001))


async def test_writes_between_two_pages_neither_repeat_nor_skip_what_was_there_all_the_time(
    start: Start, fresh_database: Callable[[], str]
) -> None:
    client = await start(fresh_database())
    seen: list[int] = []
    following: str | None = "/templates?limit=100"
    pages = 0
    while following is not None:
        page = (await client.get(following)).json()
        seen += [item["id"] for item in page["items"]]
        following = page["next"]
        pages += 1
        if pages <= 5:
            assert (await client.post("/template-details", json=BODY)).status_code == 201
            assert (await client.delete(_at(pages))).status_code == 204  # seen already
            assert (await client.delete(_at(990 + pages))).status_code == 204  # not seen yet
    assert Counter(seen) == Counter([*range(1, 991), *range(996, 1001), *range(1001, 1006)])


async def test_a_read_is_loaded_once_and_then_comes_from_the_cache_growing_older(client: httpx.AsyncClient) -> None:
    first, second = [await client.get(_at(500)) for _ in range(2)]
    assert [first.headers["x-cache"], second.headers["x-cache"]] == ["origin", "l1"]
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"] == '"500-1"'
    assert int(first.headers["age"]) <= int(second.headers["age"]) <= 30


async def test_concurrent_reads_of_a_cold_template_share_one_load(start: Start, database_url: str) -> None:
    client = await start(database_url, load_delay_ms=50)
    answers = await asyncio.gather(*(client.get(_at(501)) for _ in range(20)))
    assert Counter(answer.headers["x-cache"] for answer in answers) == {"origin": 1, "shared": 19}
    assert len({answer.content for answer in answers}) == 1


async def test_a_template_lives_from_post_to_delete(client: httpx.AsyncClient) -> None:
    created = await client.post("/template-details", json=BODY)
    assert created.status_code == 201
    location = created.headers["location"]
    read = await client.get(location)
    assert read.content == created.content
    put = await client.put(location, json={"name": "other", "body": ""}, headers={"If-Match": read.headers["etag"]})
    assert put.status_code == 200
    assert put.json()["version"] == 2
    assert put.json()["updated_at"] > created.json()["updated_at"]
    assert (await client.get(location)).content == put.content
    assert (await client.get(location, headers={"If-None-Match": put.headers["etag"]})).status_code == 304
    problem_of(await client.delete(location, headers={"If-Match": read.headers["etag"]}), 412, "version_mismatch")
    assert (await client.delete(location, headers={"If-Match": put.headers["etag"]})).status_code == 204
    for method in ("GET", "DELETE"):
        problem_of(await client.request(method, location), 404, "template_not_found")
    problem_of(await client.put(location, json=BODY), 404, "template_not_found")


async def test_of_concurrent_writes_that_expect_one_version_exactly_one_is_done(client: httpx.AsyncClient) -> None:
    tag = (await client.get(_at(502))).headers["etag"]
    answers = await asyncio.gather(
        *(client.put(_at(502), json={"name": f"writer {n}", "body": ""}, headers={"If-Match": tag}) for n in range(10))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 9}
    (winner,) = [answer for answer in answers if answer.status_code == 200]
    assert (await client.get(_at(502))).content == winner.content


@pytest.mark.parametrize("mode", ["none", "mutex", "singleflight", "fleet", "full"])
async def test_a_read_after_a_write_was_answered_never_shows_what_was_before(
    start: Start, database_url: str, mode: str
) -> None:
    client = await start(database_url, mode=mode, load_delay_ms=20, cache_key_prefix=mode)
    template_id = 503
    answered = (await client.get(_at(template_id))).json()["version"]
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            least = answered
            assert (await client.get(_at(template_id))).json()["version"] >= least
            await asyncio.sleep(0)  # without a network between, a hit waits for nothing

    readers = [asyncio.create_task(read()) for _ in range(5)]
    for round_ in range(10):
        put = await client.put(_at(template_id), json={"name": "x", "body": str(round_)})
        assert put.status_code == 200, put.text
        answered = put.json()["version"]
    done.set()
    await asyncio.gather(*readers)


async def test_a_write_while_the_old_value_is_being_loaded_is_not_undone_by_that_load(
    start: Start, database_url: str
) -> None:
    client = await start(database_url, load_delay_ms=300)
    loading = asyncio.create_task(client.get(_at(504)))
    async with asyncio.timeout(10):
        while "http_in_flight_requests 1.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    put = await client.put(_at(504), json=BODY)
    assert (await client.get(_at(504))).content == put.content
    await loading
    after = await client.get(_at(504))
    assert after.content == put.content
    assert after.headers["x-cache"] == "l1"


NAMES = sorted(
    {
        chr(code)
        for code in range(0x3001)
        if chr(code).isspace() or unicodedata.category(chr(code)) in ("Cc", "Cf", "Zs")
    }
    | {"\u200b", "\ufeff", "\ufffe", "\uffff", "\U0010ffff", "'; DROP TABLE templates; --", "%s", "$1", "\\"}
)


async def test_what_the_domain_takes_for_a_name_the_database_takes_too(client: httpx.AsyncClient) -> None:
    for name in NAMES:
        response = await client.post("/template-details", json={"name": name, "body": name})
        if name.strip() and name != "\0":
            assert response.status_code == 201, ascii(name)
            assert response.json()["name"] == name
            assert (await client.get(response.headers["location"])).json()["name"] == name
        else:
            problem_of(response, 422, "invalid_input")


async def test_without_its_database_it_serves_what_is_cached_and_503_for_the_rest(
    start: Start, own_postgres: Callable[..., EmbeddedPostgres]
) -> None:
    postgres = own_postgres()
    client = await start(postgres.url("app"), database_connect_timeout_s=1)
    cached = await client.get(_at(1))
    postgres.kill()
    again = await client.get(_at(1))
    assert (again.status_code, again.content) == (200, cached.content)
    requests = (
        client.get(_at(2)),
        client.head(_at(2)),
        client.put(_at(1), json=BODY),
        client.post("/template-details", json=BODY),
        client.delete(_at(1)),
        client.get("/templates"),
    )
    for response in [await request for request in requests]:
        assert int(response.headers["retry-after"]) >= 1
        if response.request.method != "HEAD":
            problem_of(response, 503, "storage_unavailable")
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"cache": "ok", "database": "failed"})
    assert (await client.get("/live")).status_code == 200


async def test_without_its_cache_it_answers_from_the_database(start: Start, database_url: str) -> None:
    client = await start(database_url, redis_url="redis://127.0.0.1:1/0")
    for source in ("origin", "l1"):
        response = await client.get(_at(505))
        assert (response.status_code, response.headers["x-cache"]) == (200, source)
    created = await client.post("/template-details", json=BODY)
    assert created.status_code == 201
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"cache": "failed", "database": "ok"})


SWITCHES: list[dict[str, object]] = [
    {"l1_enabled": False},
    {"lease_enabled": False},
    {"coherence_enabled": False},
    {"grace_s": 0},
    {"stale_if_error_s": 0},
    {"early_refresh_beta": 0},
    {"negative_ttl_s": 0},
    {"bulkhead_concurrent": 0},
    {"database_breaker_failures": 0},
]


@pytest.mark.parametrize("off", [*SWITCHES, dict(pair for each in SWITCHES for pair in each.items())], ids=str)
async def test_each_part_can_be_switched_off_and_one_load_still_serves_all(
    start: Start, database_url: str, off: dict[str, object]
) -> None:
    prefix = "-".join(off)[:64]
    client = await start(database_url, mode="full", load_delay_ms=50, cache_key_prefix=prefix, **off)
    answers = await asyncio.gather(*(client.get(_at(600)) for _ in range(20)))
    assert Counter(answer.headers["x-cache"] for answer in answers) == {"origin": 1, "shared": 19}
    assert (await client.get(_at(600))).headers["x-cache"] == ("l2" if off.get("l1_enabled") is False else "l1")
    put = await client.put(_at(600), json={"name": "x", "body": prefix})
    assert (await client.get(_at(600))).content == put.content
    assert (await client.get(_at(99_999))).status_code == 404
