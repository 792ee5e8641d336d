from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.api.http.conftest import Api


@pytest.fixture
def shared_api() -> Api:
    """One for each test: its counts are looked at."""
    return Api()


ROUTES = {"/template-details", "/templates", "/live", "/ready", "/docs", "/openapi.json", "unmatched"}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"}


async def _series(api: Api) -> dict[str, float]:
    lines = (await api.client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


async def test_every_series_of_the_six_panels_is_there_at_zero_before_the_first_request(api: Api) -> None:
    series = await _series(api)
    wanted = re.compile(r"^(http_request_total|cache_|db_hits|singleflight)")
    at_start = {name: value for name, value in series.items() if wanted.match(name)}
    assert at_start.pop("cache_ttl_seconds") == 30
    # Of no use, and so no number, in the modes that have neither.
    assert [at_start.pop(f"cache_{name}_up") != 0 for name in ("listen", "wakeups")] == [True, True]
    assert set(at_start.values()) == {0.0}
    for name in (
        'http_request_total{method="GET",path="/template-details",status="200"}',
        'http_request_total{method="PUT",path="/template-details",status="503"}',
        'cache_hits_total{tier="l1"}',
        'cache_hits_total{tier="l2"}',
        "cache_misses_total",
        "db_hits_total",
        "singleflight_shared_total",
        "cache_least_loads_total",
        'cache_errors_total{operation="get"}',
        *(f'cache_reads_total{{source="{source}"}}' for source in ("l1", "l2", "origin", "shared", "stale")),
    ):
        assert name in at_start
    assert series["http_in_flight_requests"] == 0
    assert series["draining"] == 0
    assert series['app_info{mode="singleflight",version="1.2.3"}'] == 1


async def test_a_request_is_counted_once_by_route_method_and_status_and_timed(api: Api) -> None:
    before = await _series(api)
    for path in ("/template-details?id=1", "/template-details?id=2", "/template-details?id=99", "/templates?limit=1"):
        await api.client.get(path)
    await api.client.get("/template-details?id=1", headers={"If-None-Match": "*"})
    after = await _series(api)
    rose = {name: value - before.get(name, 0) for name, value in after.items() if name.startswith("http_request_total")}
    assert {name: by for name, by in rose.items() if by} == {
        'http_request_total{method="GET",path="/template-details",status="200"}': 2,
        'http_request_total{method="GET",path="/template-details",status="304"}': 1,
        'http_request_total{method="GET",path="/template-details",status="404"}': 1,
        'http_request_total{method="GET",path="/templates",status="200"}': 1,
    }
    assert after['http_request_duration_seconds_count{method="GET",path="/template-details"}'] == 4
    assert after["http_in_flight_requests"] == 0


async def test_who_names_metrics_gets_their_samples_alone(api: Api) -> None:
    response = await api.client.get("/metrics?name[]=draining&name[]=http_in_flight_requests")
    assert response.status_code == 200
    found = {line.partition(" ")[0].partition("{")[0] for line in response.text.splitlines() if line[0] != "#"}
    assert found == {"draining", "http_in_flight_requests"}


async def test_scrapes_are_not_counted_as_traffic(api: Api) -> None:
    await api.client.get("/metrics")
    text = (await api.client.get("/metrics")).text
    assert 'path="/metrics"' not in text
    assert sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if "http_request_total{" in line) == 0


async def test_no_path_and_no_method_that_a_client_makes_up_becomes_a_label(api: Api) -> None:
    await api.client.get("/nope")
    await api.client.request("FOO", "/nope")
    before = set(await _series(api))
    for number in range(50):
        await api.client.get(f"/secret-{number}?token={number}")
        await api.client.get(f"/template-details/{number}")
        await api.client.get(f"/docs/static/{number}.js")
        await api.client.request(f"METHOD{number}", "/nope")
    text = (await api.client.get("/metrics")).text
    assert "secret" not in text
    assert "token" not in text
    assert "METHOD" not in text
    assert set(await _series(api)) == before
    assert set(re.findall(r'path="([^"]*)"', text)) <= ROUTES
    assert set(re.findall(r'method="([^"]*)"', text)) <= METHODS


async def test_a_bug_is_counted_as_500(api: Api) -> None:
    api.cache.error = ValueError("odd")
    await api.client.get("/template-details?id=1")
    series = await _series(api)
    assert series['http_request_total{method="GET",path="/template-details",status="500"}'] == 1


OPENMETRICS = "application/openmetrics-text"


@pytest.mark.parametrize(
    "accept",
    [
        OPENMETRICS,
        f"{OPENMETRICS}; version=1.0.0",
        f"{OPENMETRICS.title()};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        f"{OPENMETRICS};version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0",
        f"{OPENMETRICS}; version=x",
        f"{OPENMETRICS}; version=\xb2",
        f"{OPENMETRICS};=;=",
    ],
)
async def test_openmetrics_for_who_lists_it_whatever_the_version(api: Api, accept: str) -> None:
    response = await api.client.get("/metrics", headers={b"Accept": accept.encode("latin-1")})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(f"{OPENMETRICS}; version=1.0.0; charset=utf-8")
    assert "db_hits" in {family.name for family in parse_openmetrics(response.text)}  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "text/plain",
        "text/html",
        ";;,,",
        "text/plain; version=\xb2",
        "text/plain;version=1.0.0",
        "," * 9_000,
    ],
)
async def test_plain_text_for_everybody_else(api: Api, accept: str | None) -> None:
    headers = {} if accept is None else {b"Accept": accept.encode("latin-1")}
    response = await api.client.get("/metrics", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert "db_hits" in {family.name for family in parse_text(response.text)}
