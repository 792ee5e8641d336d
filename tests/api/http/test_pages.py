from __future__ import annotations

import re

import pytest

from app.domain.template import MAX_ID
from app.service import MAX_PAGE
from tests.api.http.conftest import Api
from tests.api.http.fake_ports import template
from tests.api.http.problem import problem_of


async def _walk(api: Api, path: str) -> list[list[int]]:
    pages: list[list[int]] = []
    following: str | None = path
    while following is not None:
        response = await api.client.get(following)
        assert response.status_code == 200
        page = response.json()
        assert page.keys() == {"items", "next"}
        pages.append([item["id"] for item in page["items"]])
        following = page["next"]
        link = re.fullmatch(r'<(.*)>; rel="next"', response.headers.get("link", ""))
        assert (link[1] if link else None) == following
        assert len(pages) < 100
    return pages


@pytest.mark.parametrize(
    ("count", "limit", "sizes"),
    [(0, 3, [0]), (1, 3, [1]), (3, 3, [3]), (4, 3, [3, 1]), (6, 3, [3, 3]), (7, 3, [3, 3, 1]), (2, 1, [1, 1])],
)
async def test_the_pages_hold_every_template_once_and_the_last_one_names_no_next(
    api: Api, count: int, limit: int, sizes: list[int]
) -> None:
    ids = [n * n + 1 for n in range(count)]
    api.repository.templates.clear()
    api.repository.put(*map(template, ids))
    pages = await _walk(api, f"/templates?limit={limit}")
    assert list(map(len, pages)) == sizes
    assert [template_id for page in pages for template_id in page] == ids


async def test_a_page_has_20_templates_unless_it_is_asked_for_another_number(api: Api) -> None:
    api.repository.put(*map(template, range(1, 301)))
    assert list(map(len, await _walk(api, "/templates"))) == [20] * 15
    assert list(map(len, await _walk(api, f"/templates?limit={MAX_PAGE}"))) == [100] * 3


async def test_an_item_of_a_page_is_the_template_that_is_read_by_its_id(api: Api) -> None:
    (first, second) = (await api.client.get("/templates")).json()["items"]
    assert first == (await api.client.get("/template-details?id=1")).json()
    assert second == (await api.client.get("/template-details?id=2")).json()


async def test_inserts_and_deletions_between_two_pages_neither_repeat_nor_skip_the_rest(api: Api) -> None:
    api.repository.templates.clear()
    api.repository.put(*map(template, (10, 20, 30, 40)))
    first = (await api.client.get("/templates?limit=2")).json()
    api.repository.put(template(5), template(15), template(25), template(50))
    del api.repository.templates[20]
    rest = await _walk(api, first["next"])
    assert [template_id for page in rest for template_id in page] == [25, 30, 40, 50]


async def test_after_the_last_template_comes_an_empty_page(api: Api) -> None:
    for after in (2, MAX_ID):
        response = await api.client.get(f"/templates?after={after}")
        assert response.json() == {"items": [], "next": None}
        assert "link" not in response.headers


BAD_BOUNDS = {
    "after": ["", "-1", "x", "1.5", "01", "%00", "%2B1", "1e3", "%EF%BC%91", str(MAX_ID + 1), "9" * 10_000],
    "limit": ["", "0", "-1", "x", "1.5", "05", str(MAX_PAGE + 1), "9" * 10_000],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD_BOUNDS for value in BAD_BOUNDS[name]])
async def test_a_bound_that_is_none_gets_400_which_names_it(api: Api, name: str, value: str) -> None:
    for query in (f"{name}={value}", f"{name}=1&{name}=1"):
        response = await api.client.get(f"/templates?{query}")
        (error,) = problem_of(response, 400, "malformed_request")["errors"]
        assert error["field"] == name
        assert len(response.content) < 1_000
