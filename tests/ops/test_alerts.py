"""The alert rules: well-formed, about metrics that exist, and each tested to fire and to keep quiet."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from tests.ops import dashboard
from tests.ops.prometheus_server import binary
from tests.ops.test_dashboard import declared_names

RULES = dashboard.ROOT / "prometheus" / "rules" / "alerts.yaml"
CASES = dashboard.ROOT / "tests" / "ops" / "alerts_test.yaml"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


def promtool(*arguments: str) -> None:
    done = subprocess.run([binary("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules_and_the_configuration_that_names_them() -> None:
    promtool("check", "rules", str(RULES))
    promtool("check", "config", str(dashboard.ROOT / "prometheus.yaml"))


def test_each_alert_fires_when_it_must_and_not_otherwise() -> None:
    promtool("test", "rules", str(CASES))


def test_what_is_promised_is_alerted_on_and_tested() -> None:
    names = {alert["alert"] for alert in ALERTS}
    assert names >= {"StampedeFactorHigh", "StaleServedTooLong", "BreakerOpen", "ListenDown"}
    assert names >= {
        "LoomDown",
        "LoomStampede",
        "LoomBreakerOpen",
        "LoomRecordsDropped",
        "LoomErrorShareHigh",
        "LoomBlinded",
    }
    assert [name for name in names if name not in CASES.read_text()] == []


@every_alert
def test_an_alert_waits_says_what_it_means_and_how_bad_it_is(alert: dict[str, Any]) -> None:
    assert alert["for"]
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]


@every_alert
def test_an_alert_is_about_metrics_that_the_app_or_loom_declares(alert: dict[str, Any]) -> None:
    assert dashboard.metric_names(alert["expr"]) <= declared_names() | {"up"}  # which Prometheus adds


@every_alert
def test_the_documentation_says_what_to_do_about_an_alert(alert: dict[str, Any]) -> None:
    assert f"`{alert['alert']}`" in (dashboard.ROOT / "docs" / "operations.md").read_text()


def test_prometheus_finds_the_rules_here_and_where_compose_puts_them() -> None:
    config = yaml.safe_load((dashboard.ROOT / "prometheus.yaml").read_text())
    volumes = yaml.safe_load((dashboard.ROOT / "docker-compose.yaml").read_text())["services"]["prometheus"]["volumes"]
    mounted = dict(volume.split(":")[:2] for volume in volumes)
    (file,) = config["rule_files"]
    assert dashboard.ROOT / file == RULES
    assert mounted["./prometheus.yaml"] == "/etc/prometheus/prometheus.yml"
    assert mounted["./prometheus/rules"] == f"/etc/prometheus/{file}".rpartition("/")[0]
