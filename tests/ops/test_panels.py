"""Every panel's query, put to a real Prometheus that scraped the real app under load."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from app.embedded.stack import EmbeddedStack
from app.proto.template.v1.template_pb2 import (
    GetTemplateDetailsRequest,
    ImportTemplatesRequest,
    NewTemplate,
    WatchTemplatesRequest,
)
from tests.ops import dashboard
from tests.ops.prometheus_server import PrometheusServer, binary, free_port
from tests.ops.test_alerts import ALERTS

SERVICE = "/template.v1.TemplateService"
GET = GetTemplateDetailsRequest(id=1).SerializeToString()
IMPORT = ImportTemplatesRequest(templates=[NewTemplate(name="n", body="b")]).SerializeToString()
WATCH = WatchTemplatesRequest(ids=[1]).SerializeToString()
RANGE_S = 30
VARIABLES = {"__range": f"{RANGE_S}s", "__rate_interval": "5s", "__interval": "1s"}
SCRAPES = 6
LOAD_S = 40.0
QUERIES = dashboard.queries()
ZERO_IS_GOOD = {
    "Errors",
    "Early refreshes",
    "Breakers",
    "Stale served, by cause",
    "Failures of Redis, by operation",
    "Bulkhead",
    "Bulkhead rejections",
    "Invalidations pending",
    "gRPC error share",
    "Told to watchers-B",
    "Told to watchers-C",
    "Told to watchers-D",
    "Imports-C",
    "Loom circuit breaker",
    "Loom records dropped",
    "Loom mutations-B",
    "Loom connections in trouble",
}
"""Panels, or single lines of them, that show 0 where all is well."""
WELL = {"Breakers": 0, "Announcements and wake-ups": 1}
LOOM_WELL = {"Loom circuit breaker", "Loom records dropped", "Loom connections in trouble"}
RULES = '{"rules": [{"method": "*/GetTemplateDetails", "headers": {"set": {"x-panel": "1"}}}]}'
"""What Loom is to change, so that its mutations are counted."""


@contextmanager
def serving(environment: dict[str, str], log: Path) -> Iterator[tuple[str, str]]:
    """`python -m app serve` as a process of its own; yields host:port of its HTTP and of its gRPC."""
    address, target = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    ports = {"APP_HTTP_PORT": address.rpartition(":")[2], "APP_GRPC_PORT": target.rpartition(":")[2]}
    with running(["serve"], {**ports, **environment}, f"http://{address}/ready", log):
        yield address, target


@contextmanager
def tapping(backend: str, log: Path) -> Iterator[tuple[str, str]]:
    """`python -m app loom` before a backend; yields host:port of its inspector and of what clients call."""
    address, target = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    rules = log.with_name("rules.json")
    rules.write_text(RULES)
    flags = ["--listen", target, "--ui", address, "--backend", backend, "--mutate", str(rules)]
    with running(["loom", *flags], {}, f"http://{address}/ready", log):
        yield address, target


@contextmanager
def running(arguments: list[str], environment: dict[str, str], ready: str, log: Path) -> Iterator[None]:
    """`python -m app` as a process, from when `ready` answers 200 on."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments], env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 20
        while status(ready) != 200:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def write(url: str) -> None:
    body = b'{"name": "n", "body": "b"}'
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


@contextmanager
def load(address: str, target: str, tapped: str, callers: int = 8) -> Iterator[None]:
    """Waves of callers on a cold key each, then a hit each, a bad request and a write, until the block ends.

    Over gRPC each wave begins to watch a template, reads it, imports one and asks for a method that is not there.
    Through Loom, at `tapped`, a template is watched all the time, and in each wave all callers read one cold key.
    """
    stop = threading.Event()

    def waves() -> None:
        end = time.monotonic() + LOAD_S
        with (
            ThreadPoolExecutor(callers) as pool,
            grpc.insecure_channel(target) as channel,
            grpc.insecure_channel(tapped) as loom,
        ):
            long_watch = loom.unary_stream(f"{SERVICE}/WatchTemplates")(WATCH)
            for key in range(1, 1_000):
                if stop.is_set() or time.monotonic() > end:
                    long_watch.cancel()
                    return
                watch = channel.unary_stream(f"{SERVICE}/WatchTemplates")(WATCH, timeout=10)
                next(watch)
                cold = GetTemplateDetailsRequest(id=1_000 - key).SerializeToString()
                get = loom.unary_unary(f"{SERVICE}/GetTemplateDetails")
                duplicates = [get.future(cold, timeout=10) for _ in range(callers)]
                for ids in ([key] * callers, [key] * callers, [0]):
                    list(pool.map(lambda i: status(f"http://{address}/template-details?id={i}"), ids))
                write(f"http://{address}/template-details?id={key}")
                channel.unary_unary(f"{SERVICE}/GetTemplateDetails")(GET, timeout=10)
                channel.stream_unary(f"{SERVICE}/ImportTemplates")(iter([IMPORT]), timeout=10)
                with contextlib.suppress(grpc.RpcError):
                    channel.unary_unary(f"{SERVICE}/NoSuchMethod")(b"", timeout=10)
                for duplicate in duplicates:
                    duplicate.result()
                watch.cancel()
                stop.wait(0.05)

    thread = threading.Thread(target=waves)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=20)


@pytest.fixture(scope="module")
def prometheus(
    stack: EmbeddedStack, fresh_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    binary()
    directory = tmp_path_factory.mktemp("prometheus")
    environment = {
        "APP_DATABASE_URL": fresh_database(),
        "APP_REDIS_URL": stack.redis.url(),
        "APP_CACHE_KEY_PREFIX": "panels",
        "APP_LOAD_DELAY_MS": "300",  # most of the time, so that scrapes meet requests in flight
    }
    with (
        serving(environment, directory / "app.log") as (address, target),
        tapping(target, directory / "loom.log") as (inspector, tapped),
        PrometheusServer(directory, {"app": address, "loom": inspector}) as server,
        load(address, target, tapped),
    ):
        deadline = time.monotonic() + LOAD_S
        while min(scrapes(server, "app_info"), scrapes(server, "loom_active_sessions")) < SCRAPES:
            assert time.monotonic() < deadline, "Prometheus did not scrape the app and Loom"
            time.sleep(0.2)
        yield server


def scrapes(server: PrometheusServer, gauge: str) -> int:
    found = server.get("query", query=f"count_over_time({gauge}[{RANGE_S}s])")["result"]
    return int(found[0]["value"][1]) if found else 0


@pytest.fixture(scope="module")
def job(prometheus: PrometheusServer) -> str:
    """What the dashboard's own variable offers: all of its values at once."""
    variable = dashboard.load(dashboard.FILES[0])["templating"]["list"][0]
    metric, label = variable["definition"].removeprefix("label_values(").removesuffix(")").split(", ")
    values = prometheus.get(f"label/{label}/values", **{"match[]": metric})
    assert values == ["app"]
    return "|".join(values)


def values(server: PrometheusServer, query: dashboard.Query, job: str) -> list[float]:
    """All numbers that the panel would draw."""
    expr = dashboard.substituted(query.expr, {**VARIABLES, "job": job})
    if query.instant:
        series: list[dict[str, Any]] = server.get("query", query=expr)["result"]
        found = [float(each["value"][1]) for each in series]
    else:
        now = time.time()
        series = server.get("query_range", query=expr, start=now - RANGE_S, end=now, step="1s")["result"]
        found = [float(value) for each in series for _, value in each["values"]]
    return [value for value in found if math.isfinite(value)]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.panel}-{query.ref}")
def test_a_panel_shows_a_figure_under_load(query: dashboard.Query, prometheus: PrometheusServer, job: str) -> None:
    names = dashboard.metric_names(query.expr)
    known = set(prometheus.get("label/__name__/values"))
    assert names <= known, "a metric that nobody exposes"
    found = values(prometheus, query, job)
    assert found, "nothing returned"
    assert max(found) > 0 or {query.panel, f"{query.panel}-{query.ref}"} & ZERO_IS_GOOD


def test_the_outage_row_says_that_all_is_well(prometheus: PrometheusServer, job: str) -> None:
    """In the end: a process that was kept from running may have lost the one or the other for a moment."""
    deadline = time.monotonic() + RANGE_S
    while True:
        last = {str(query): values(prometheus, query, job)[-1] for query in QUERIES if query.panel in WELL}
        assert len(last) == 3
        unwell = [query for query in last if last[query] != WELL[query.partition(":")[0]]]
        if not unwell or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    assert unwell == []


def test_the_loom_row_says_that_all_is_well(prometheus: PrometheusServer, job: str) -> None:
    trouble = {query.panel: max(values(prometheus, query, job)) for query in QUERIES if query.panel in LOOM_WELL}
    assert trouble == dict.fromkeys(LOOM_WELL, 0)


def test_the_loom_row_tells_methods_statuses_and_directions_apart(prometheus: PrometheusServer) -> None:
    calls, duplicates = "loom_proxy_requests_total", "loom_duplicate_inflight_total"
    found = {
        name: [series["metric"] for series in prometheus.get("query", query=name)["result"]]
        for name in (calls, duplicates, "loom_mutations_total")
    }
    get = f"{SERVICE}/GetTemplateDetails"
    assert {(series["method"], series["status"]) for series in found[calls]} == {(get, "OK")}
    assert get in {series["method"] for series in found[duplicates]}
    assert (get, "request") in {(series["method"], series["direction"]) for series in found["loom_mutations_total"]}


def test_prometheus_evaluates_the_alert_rules_and_none_fires(prometheus: PrometheusServer) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(ALERTS)
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_the_stampede_factor_of_the_protected_app_is_near_one(prometheus: PrometheusServer, job: str) -> None:
    query = next(each for each in QUERIES if each.panel == "Stampede factor")
    (factor,) = values(prometheus, query, job)
    assert factor == pytest.approx(1, abs=0.1)


def test_a_query_that_names_no_real_metric_returns_nothing(prometheus: PrometheusServer, job: str) -> None:
    made_up = dashboard.Query("", "", "", 'rate(no_such_metric_total{job=~"$job"}[$__rate_interval])', instant=False)
    assert values(prometheus, made_up, job) == []


def test_promtool_accepts_the_configuration() -> None:
    check = [binary("promtool"), "check", "config", str(dashboard.ROOT / "prometheus.yaml")]
    done = subprocess.run(check, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
