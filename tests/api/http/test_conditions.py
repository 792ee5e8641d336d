"""Conditional requests: RFC 9110, 13."""

from __future__ import annotations

import httpx
import pytest

from tests.api.http.conftest import Api, client_of, make_app
from tests.api.http.fake_ports import template
from tests.api.http.problem import problem_of

ONE = "/template-details?id=1"
BODY = {"name": "new", "body": "newer"}
CURRENT = '"1-3"'
"""The tag of template 1, which is at version 3."""

KNOWN = [
    CURRENT,
    f"W/{CURRENT}",
    "*",
    " * ",
    f'"1-2", {CURRENT}',
    f'"1-2",{CURRENT},"x"',
    f'"a,b", {CURRENT}',
    f" ,, {CURRENT} ,\t,",
    f'W/"z", W/{CURRENT}',
    f'"", {CURRENT}',
]
NOT_KNOWN = ['"1-2"', '"1-4"', '"2-3"', '"1-03"', '"01-3"', 'W/"1-2"', '"1-2", "1-4"', '""', '"*"', '"1,3"']
NO_TAGS = [
    "",
    ",",
    "1-3",
    f"{CURRENT} {CURRENT}",
    f"x{CURRENT}",
    f"{CURRENT}x",
    f"w/{CURRENT}",
    f"*, {CURRENT}",
    f"{CURRENT}, *",
    '"1-3',
    "'1-3'",
    '"1-3 "',
    "W/",
    '"1 3"',
    '"' * 5_000,
    ("," * 3_000 + " ") * 10,
    '"a",' * 5_000 + "x",
]


def _ids(value: object) -> str:
    return repr(value)[:30]


@pytest.mark.parametrize("header", KNOWN, ids=_ids)
async def test_if_none_match_that_names_the_tag_gets_304_without_a_body(api: Api, header: str) -> None:
    api.cache.source, api.cache.age_s = "l2", 12.9
    full = await api.client.get(ONE)
    for method in ("GET", "HEAD"):
        response = await api.client.request(method, ONE, headers={"If-None-Match": header})
        assert (response.status_code, response.content) == (304, b"")
        assert "content-type" not in response.headers
        assert "content-length" not in response.headers
        for name in ("etag", "age", "cache-control", "x-cache"):
            assert response.headers[name] == full.headers[name]


@pytest.mark.parametrize("header", [*NOT_KNOWN, *NO_TAGS], ids=_ids)
async def test_if_none_match_that_names_another_tag_or_none_gets_the_template(api: Api, header: str) -> None:
    response = await api.client.get(ONE, headers={"If-None-Match": header})
    assert response.status_code == 200
    assert response.json()["version"] == 3


async def test_if_none_match_in_several_lines_is_one_list(api: Api) -> None:
    lines = [("If-None-Match", '"1-2"'), ("If-None-Match", CURRENT)]
    assert (await api.client.get(ONE, headers=lines)).status_code == 304


async def test_if_none_match_on_what_is_not_there_gets_404(api: Api) -> None:
    response = await api.client.get("/template-details?id=9", headers={"If-None-Match": "*"})
    problem_of(response, 404, "template_not_found")


@pytest.mark.parametrize("source", ["l1", "l2", "origin", "shared", "stale"])
@pytest.mark.parametrize(("age_s", "age"), [(0.0, "0"), (0.999, "0"), (1.0, "1"), (29.99, "29"), (4e9, "4000000000")])
async def test_a_read_says_where_it_came_from_and_how_old_it_is(api: Api, source: str, age_s: float, age: str) -> None:
    api.cache.source, api.cache.age_s = source, age_s
    response = await api.client.get(ONE)
    assert response.headers["x-cache"] == source
    assert response.headers["age"] == age
    assert response.headers["etag"] == CURRENT
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["content-type"] == "application/json"


async def test_the_age_that_clients_may_keep_is_the_setting(api: Api) -> None:
    async with client_of(make_app(api.service, api.health, api.metrics, max_age_s=7)) as client:
        for headers in ({}, {"If-None-Match": "*"}):
            response = await client.get(ONE, headers=headers)
            assert response.headers["cache-control"] == "public, max-age=7"
        assert (await client.put(ONE, json=BODY)).headers["cache-control"] == "no-store"


async def test_a_template_is_sent_as_it_is_stored(api: Api) -> None:
    assert (await api.client.get(ONE)).json() == {
        "id": 1,
        "name": "name 1",
        "body": "Dear {{name}}, — 你好 😀",
        "version": 3,
        "updated_at": "2026-11-21T03:04:05.678901Z",
    }


async def test_post_gets_201_and_the_location_answers_what_was_created(api: Api) -> None:
    created = await api.client.post("/template-details", json=BODY)
    assert created.status_code == 201
    assert created.headers["location"] == "/template-details?id=3"
    assert created.headers["etag"] == '"3-1"'
    read = await api.client.get(created.headers["location"])
    assert read.content == created.content
    assert read.headers["etag"] == created.headers["etag"]
    assert api.cache.writes == [(3, 1, created.content)]


async def test_put_gets_the_new_version_and_its_tag_and_tells_the_cache(api: Api) -> None:
    put = await api.client.put(ONE, json=BODY)
    assert put.status_code == 200
    assert put.headers["etag"] == '"1-4"'
    assert {**put.json(), **BODY, "version": 4} == put.json()
    assert api.cache.writes == [(1, 4, put.content)]
    assert (await api.client.get(ONE)).content == put.content


async def test_delete_gets_204_then_404_and_tells_the_cache_a_version_above_all(api: Api) -> None:
    deleted = await api.client.delete(ONE)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert "content-type" not in deleted.headers
    assert api.cache.writes == [(1, 4, None)]
    for method in ("GET", "HEAD", "DELETE"):
        assert (await api.client.request(method, ONE)).status_code == 404


async def _write(api: Api, method: str, headers: object, path: str = ONE) -> httpx.Response:
    content = b'{"name":"new","body":"newer"}' if method == "PUT" else None
    return await api.client.request(
        method,
        path,
        content=content,
        headers=[("Content-Type", "application/json"), *headers],  # type: ignore[misc]
    )


STRONG = [header for header in KNOWN if not header.startswith("W/")]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("header", STRONG, ids=_ids)
async def test_if_match_that_names_the_tag_lets_the_write_through(api: Api, method: str, header: str) -> None:
    assert (await _write(api, method, [("If-Match", header)])).is_success
    assert len(api.cache.writes) == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "header", [*NOT_KNOWN, f"W/{CURRENT}", f'W/{CURRENT}, "1-2"', '"1-99999999999999999999"', f'"1-{2**63}"'], ids=_ids
)
async def test_if_match_that_names_only_other_tags_or_weak_ones_gets_412(api: Api, method: str, header: str) -> None:
    problem_of(await _write(api, method, [("If-Match", header)]), 412, "version_mismatch")
    assert api.repository.templates[1].version == 3
    assert api.cache.writes == []


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("header", NO_TAGS, ids=_ids)
async def test_if_match_that_is_no_list_of_tags_gets_400_and_writes_nothing(api: Api, method: str, header: str) -> None:
    problem_of(await _write(api, method, [("If-Match", header)]), 400, "malformed_request")
    assert api.repository.templates[1].version == 3


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_if_match_in_several_lines_is_one_list(api: Api, method: str) -> None:
    assert (await _write(api, method, [("If-Match", '"1-2"'), ("If-Match", CURRENT)])).is_success


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_the_tag_of_another_template_at_the_same_version_does_not_match(api: Api, method: str) -> None:
    api.repository.put(template(2, version=3))
    path = "/template-details?id=2"
    problem_of(await _write(api, method, [("If-Match", CURRENT)], path), 412, "version_mismatch")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("header", ["*", CURRENT])
async def test_if_match_on_what_is_not_there_gets_404(api: Api, method: str, header: str) -> None:
    response = await _write(api, method, [("If-Match", header)], "/template-details?id=9")
    problem_of(response, 404, "template_not_found")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_write_only_if_nothing_is_there_is_never_done(api: Api, method: str) -> None:
    unless = [("If-None-Match", "*")]
    problem_of(await _write(api, method, unless), 412, "version_mismatch")
    problem_of(await _write(api, method, [*unless, ("If-Match", CURRENT)]), 412, "version_mismatch")
    problem_of(await _write(api, method, unless, "/template-details?id=9"), 404, "template_not_found")
    problem_of(await _write(api, method, [("If-None-Match", CURRENT)]), 400, "malformed_request")
    assert api.repository.templates[1].version == 3
