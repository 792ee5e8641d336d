"""What can be held of the dashboard without a server."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from app.loom.metrics import LoomMetrics
from app.telemetry.metrics import Metrics
from tests.ops import dashboard

BOARDS = [dashboard.load(path) for path in dashboard.FILES]
GO_DEMO_PANELS = {
    "Requests per second by path, method and status",
    "p95 latency",
    "Hits and misses",
    "Database hits",
    "Singleflight shared",
    "In flight",
}
LOOM_PANELS = {
    "Loom calls per second by method and status",
    "Loom p95 latency",
    "Loom in flight",
    "Loom circuit breaker",
    "Loom duplicates in flight",
    "Loom records dropped",
    "Loom mutations",
}
PROMETHEUS_OWN = {"up"}


def main_board() -> dict[str, Any]:
    return next(board for board in BOARDS if board["title"] == "Singleflight Service Dashboard")


def datasource_uids(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["datasource"]["uid"]} if isinstance(node.get("datasource"), dict) else set()
        return own.union(*map(datasource_uids, node.values()))
    return set().union(*map(datasource_uids, node)) if isinstance(node, list) else set()


def test_the_dashboard_opens_on_the_last_five_minutes_and_refreshes_every_five_seconds() -> None:
    board = main_board()
    assert board["time"] == {"from": "now-5m", "to": "now"}
    assert board["refresh"] == "5s"


def test_the_first_row_shows_stampede_factor_hit_ratio_and_errors() -> None:
    top = [panel["title"] for panel in dashboard.panels(main_board()) if panel["gridPos"]["y"] < 6]
    assert {"Stampede factor", "Hit ratio", "Errors"} <= set(top)


def test_the_six_panels_of_the_go_demo_are_there() -> None:
    assert {panel["title"] for panel in dashboard.panels(main_board())} >= GO_DEMO_PANELS


def test_every_datasource_is_one_that_is_provisioned() -> None:
    provisioning = dashboard.ROOT / "grafana" / "provisioning" / "datasources"
    known = {s["uid"] for file in provisioning.glob("*.yaml") for s in yaml.safe_load(file.read_text())["datasources"]}
    used = datasource_uids(BOARDS) - {"-- Grafana --"}
    assert used
    assert used <= known


def test_panels_have_unique_ids_a_description_a_unit_and_a_legend() -> None:
    for board in BOARDS:
        drawn = list(dashboard.panels(board))
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))
        for panel in drawn:
            assert panel["description"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_panels_do_not_overlap() -> None:
    for board in BOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24, panel["title"]
            taken |= cells


def test_the_row_of_loom_shows_what_it_must() -> None:
    (row,) = [panel["gridPos"]["y"] for panel in main_board()["panels"] if panel["title"] == "Loom"]
    assert {panel["title"] for panel in dashboard.panels(main_board()) if panel["gridPos"]["y"] > row} >= LOOM_PANELS


def test_every_query_is_bound_to_the_chosen_application_or_to_loom() -> None:
    for query in dashboard.queries():
        selectors = re.findall(r"\{([^}]*)\}", query.expr)
        bound = 'job="loom"' if "loom_" in query.expr else 'job=~"$job"'
        assert selectors, query
        assert all(bound in selector for selector in selectors), query


def test_loom_is_scraped_as_the_job_that_its_panels_name() -> None:
    jobs = yaml.safe_load((dashboard.ROOT / "prometheus.yaml").read_text())["scrape_configs"]
    assert "loom" in {job["job_name"] for job in jobs}


def test_every_metric_that_a_query_names_is_one_that_the_app_or_loom_declares() -> None:
    declared = declared_names() | PROMETHEUS_OWN
    for query in dashboard.queries():
        assert dashboard.metric_names(query.expr) <= declared, query


def test_the_first_server_error_of_a_route_is_seen_because_its_series_starts_at_zero() -> None:
    metrics = Metrics(mode="none", version="0", ttl_s=1)
    metrics.expect_route("/template-details", "GET")
    text = b"".join(metrics.exposition("text/plain")[0]).decode()
    for status in ("500", "503", "504"):
        assert f'http_request_total{{method="GET",path="/template-details",status="{status}"}} 0.0' in text


def declared_names() -> set[str]:
    """The series of the app and of Loom, by name."""
    text = b"".join(Metrics(mode="none", version="0", ttl_s=1).exposition("text/plain")[0]).decode()
    text += LoomMetrics().exposition()[0].decode()
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('sum by (job) (rate(a_total{x="b_total"}[5m])) / on (job) group_left (z) c', {"a_total", "c"}),
        ("histogram_quantile(0.95, sum by (le) (rate(d_bucket[$__rate_interval]))) or vector(0)", {"d_bucket"}),
        ("clamp_min(e - f offset 5m, 1) unless g", {"e", "f", "g"}),
    ],
)
def test_metric_names_are_read_out_of_a_query(expr: str, names: set[str]) -> None:
    assert dashboard.metric_names(expr) == names
