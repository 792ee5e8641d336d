from __future__ import annotations

import httpx
import pytest

from tests.api.http.conftest import Api
from tests.api.http.problem import problem_of

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "FOO")
READ = {"GET", "HEAD"}
ALLOWED = {
    "/template-details": {*READ, "PUT", "POST", "DELETE"},
    "/template-details?id=1": {*READ, "PUT", "POST", "DELETE"},
    "/templates": READ,
    "/live": READ,
    "/ready": READ,
    "/metrics": READ,
    "/docs": READ,
    "/docs/static/docs.js": READ,
    "/openapi.json": READ,
}
UNKNOWN = (
    "/",
    "/nope",
    "/template-details/",
    "/template-details/1",
    "//template-details",
    "/Template-Details",
    "/templates/",
    "/live/",
    "/docs/",
    "/redoc",
    "/docs/static",
    "/docs/static/",
    "/docs/static/nope.js",
    "/docs/static/swagger-ui",
    "/docs/static/%2e%2e/app.py",
    "/docs/static/%2e%2e%2fapp.py",
    "/docs/static/%00",
    "/docs/static/" + "a" * 5_000,
    "/%00",
    "/%ff",
    "/" + "a" * 10_000,
    "/template-details%3Fid=1",
)


@pytest.mark.parametrize("path", ALLOWED)
@pytest.mark.parametrize("method", METHODS)
async def test_a_method_that_a_path_does_not_take_gets_405_and_all_that_it_takes(
    api: Api, path: str, method: str
) -> None:
    response = await api.client.request(method, path)
    if method in ALLOWED[path]:
        assert response.status_code != 405
        assert "allow" not in response.headers
    else:
        problem_of(response, 405, "method_not_allowed")
        assert set(response.headers["allow"].split(", ")) == ALLOWED[path]


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "POST", "FOO"])
async def test_a_path_that_is_not_there_gets_404_and_no_redirect(api: Api, path: str, method: str) -> None:
    response = await api.client.send(httpx.Request(method, httpx.URL("http://app", raw_path=path.encode())))
    if path.startswith("/docs/static/") and method != "GET":
        problem_of(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD"
    else:
        problem_of(response, 404, "not_found")


@pytest.mark.parametrize("path", ["/live", "/ready", "/docs", "/openapi.json", "/templates", "/template-details?id=1"])
async def test_head_has_the_head_of_get(api: Api, path: str) -> None:
    get, head = [await api.client.request(method, path) for method in ("GET", "HEAD")]
    assert get.status_code == head.status_code == 200
    assert get.headers == head.headers
    assert int(head.headers["content-length"]) == len(get.content)
