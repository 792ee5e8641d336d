from __future__ import annotations

import pytest

from tests.api.http.conftest import Api


async def test_live_answers_whatever_the_dependencies_do(api: Api) -> None:
    api.redis.up = api.database.up = False
    api.health.draining = True
    response = await api.client.get("/live")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("redis", "database", "draining", "status", "word"),
    [
        (True, True, False, 200, "ready"),
        (False, True, False, 200, "ready"),
        (True, False, False, 200, "ready"),
        (False, False, False, 503, "unavailable"),
        (True, True, True, 503, "draining"),
        (False, False, True, 503, "draining"),
    ],
)
async def test_ready_while_cache_or_database_answers_and_the_process_is_to_stay(
    api: Api, redis: bool, database: bool, draining: bool, status: int, word: str
) -> None:
    api.redis.up, api.database.up, api.health.draining = redis, database, draining
    response = await api.client.get("/ready")
    assert response.status_code == status
    words = {True: "ok", False: "failed"}
    assert response.json() == {"status": word, "checks": {"cache": words[redis], "database": words[database]}}
    assert response.headers["cache-control"] == "no-store"
    assert (await api.client.head("/ready")).status_code == status


@pytest.mark.parametrize("path", ["/live", "/template-details?id=1", "/template-details?id=x", "/nope"])
async def test_every_answer_asks_to_reconnect_while_draining_and_none_before(api: Api, path: str) -> None:
    assert "connection" not in (await api.client.get(path)).headers
    api.health.draining = True
    assert (await api.client.get(path)).headers["connection"] == "close"


async def test_an_answer_that_closes_anyway_says_so_once_while_draining(api: Api) -> None:
    api.health.draining = True
    response = await api.client.post(
        "/template-details", content=b" " * 900_000, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert response.headers.get_list("connection") == ["close"]
