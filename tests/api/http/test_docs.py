from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from app.api.http.problems import STATUSES
from app.domain.template import MAX_BODY_CHARS, MAX_ID, MAX_NAME_CHARS
from tests.api.http.conformance import ANYWHERE, description
from tests.api.http.conftest import Api

METHODS = {"get", "put", "post", "delete", "head"}


class _Assets(HTMLParser):
    """What a page has the browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.found += [str(named[name]) for name in ("src", "href") if name in named]
        if tag == "style" or (tag == "script" and "src" not in named) or any(n.startswith("on") for n in named):
            self.inline.append(tag)


async def test_the_docs_page_loads_only_what_this_server_has(api: Api) -> None:
    page = await api.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assets = _Assets()
    assets.feed(page.text)
    assert len(assets.found) == 4
    for path in assets.found:
        assert path.startswith("/docs/static/"), path
        asset = await api.client.get(path)
        assert asset.status_code == 200
        assert asset.content
    assert "://" not in page.text
    assert assets.inline == []


async def test_the_docs_page_may_load_nothing_else(api: Api) -> None:
    policy = (await api.client.get("/docs")).headers["content-security-policy"]
    assert "default-src 'self'" in policy.split("; ")
    assert "http" not in policy
    assert "*" not in policy
    assert "script" not in policy, "scripts come under default-src: from here, and not inline"


async def test_the_styles_and_the_page_s_own_script_name_no_other_server(api: Api) -> None:
    styles = (await api.client.get("/docs/static/swagger-ui/swagger-ui.css")).text
    loaded = re.findall(r"url\(\s*['\"]?([^'\")\s]+)|@import\s+['\"]([^'\"]+)", styles)
    assert not [url for pair in loaded for url in pair if url and not url.startswith("data:")]
    script = (await api.client.get("/docs/static/docs.js")).text
    assert "://" not in script
    assert '"/openapi.json"' in script


async def test_the_description_is_openapi_3_1_as_served(api: Api) -> None:
    served = (await api.client.get("/openapi.json")).json()
    assert served["openapi"].startswith("3.1.")
    assert served["info"]["version"] == "1.2.3"
    assert served["paths"].keys() == description()["paths"].keys()
    assert set(served["paths"]) == {"/template-details", "/templates", "/live", "/ready", "/metrics"}


def _nodes(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)


def test_every_reference_in_the_description_leads_somewhere() -> None:
    references = {node["$ref"] for node in _nodes(description()) if "$ref" in node}
    assert references
    for reference in references:
        target: Any = description()
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


def test_every_operation_has_an_id_of_its_own_and_its_parameters_differ() -> None:
    operations = [operation for path in description()["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert {method for path in description()["paths"].values() for method in path} <= METHODS
    for operation in operations:
        names = [(parameter["in"], parameter["name"]) for parameter in operation.get("parameters", [])]
        assert len(set(names)) == len(names)
        assert operation["summary"]
        assert all(response["description"] for response in operation["responses"].values())


def test_every_status_of_the_table_is_described_somewhere_and_every_described_error_is_in_the_table() -> None:
    described = {
        int(status)
        for path in ("/template-details", "/templates")
        for operation in description()["paths"][path].values()
        for status in operation["responses"]
        if int(status) >= 400
    }
    assert described == {status.value for status in STATUSES.values()}
    assert described.isdisjoint(ANYWHERE)


def test_the_description_states_the_bounds_that_are_enforced() -> None:
    operations = description()["paths"]["/template-details"]
    for method in ("get", "head", "put", "delete"):
        (id_,) = [p for p in operations[method]["parameters"] if p["name"] == "id"]
        assert id_["required"]
        assert (id_["schema"]["minimum"], id_["schema"]["maximum"]) == (1, MAX_ID)
    for method in ("put", "post"):
        schema = operations[method]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == {"name", "body"}
        assert schema["properties"]["name"]["maxLength"] == MAX_NAME_CHARS
        assert schema["properties"]["body"]["maxLength"] == MAX_BODY_CHARS
