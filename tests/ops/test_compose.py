"""What can be held of the compose file, the image and Prometheus' configuration without an engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from app.cli.loom import loom
from app.settings import Settings
from app.tracing_settings import TracingSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IMAGES = dict(
    line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if line and not line.startswith("#")
)
APPS = ["app", "replica", "app-unprotected"]
OURS = [*APPS, "loom"]
"""Services of the image that is built here."""
every_service = pytest.mark.parametrize("name", SERVICES)
every_app = pytest.mark.parametrize("name", APPS)
every_own = pytest.mark.parametrize("name", OURS)


@every_service
def test_ports_are_published_on_loopback_only_and_can_be_moved(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{HOST_[A-Z]+_PORT:-\d+\}:\d+", port), port


def test_the_ports_are_the_documented_ones() -> None:
    published = {
        name: sorted(int(number) for port in service.get("ports", []) for number in re.findall(r":-(\d+)", port))
        for name, service in SERVICES.items()
    }
    assert published == {
        "app": [8080, 50051],
        "replica": [],
        "app-unprotected": [8081],
        "loom": [9998, 9999],
        "postgres": [5432],
        "redis": [6379],
        "prometheus": [9090],
        "grafana": [3000],
        "jaeger": [16686],
    }


@every_service
def test_images_are_pinned_in_the_env_file_alone(name: str) -> None:
    image = SERVICES[name]["image"]
    if name in OURS:
        assert image == SERVICES["app"]["image"]
    else:
        assert image == f"${{{name.upper()}_IMAGE}}"
        assert image[2:-1] in IMAGES


def test_every_pinned_image_has_an_exact_tag() -> None:
    for image in IMAGES.values():
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-|$)", image), image
        assert "latest" not in image


def test_the_dockerfile_default_is_the_image_that_compose_passes_in() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE).group(1) == IMAGES["PYTHON_IMAGE"]  # type: ignore[union-attr]
    assert SERVICES["app"]["build"]["args"] == {"PYTHON_IMAGE": "${PYTHON_IMAGE}"}
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


@every_service
def test_every_service_has_a_healthcheck_a_memory_limit_bounded_logs_and_restarts(name: str) -> None:
    service = SERVICES[name]
    assert "healthcheck" in service or (name in APPS and "\nHEALTHCHECK " in DOCKERFILE)
    assert re.fullmatch(r"\d+m", service["mem_limit"])
    assert service["restart"] == "unless-stopped"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@every_service
def test_services_wait_for_the_health_of_what_they_depend_on(name: str) -> None:
    dependencies = SERVICES[name].get("depends_on", {})
    assert all(each == {"condition": "service_healthy"} for each in dependencies.values())
    if name in OURS:
        assert dependencies


@every_own
def test_the_app_and_loom_have_no_more_rights_than_they_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


@every_app
def test_an_orderly_stop_is_longer_than_the_longest_drain(name: str) -> None:
    drain = Settings.model_fields["drain_delay_s"].default + Settings.model_fields["drain_timeout_s"].default
    assert float(SERVICES[name]["stop_grace_period"].removesuffix("s")) > drain
    assert re.search(r'^CMD \["python", "-m", "app", "serve"\]$', DOCKERFILE, re.MULTILINE), "a shell would eat SIGTERM"


@every_app
def test_every_variable_that_compose_sets_is_a_setting(name: str) -> None:
    given = {key for key in SERVICES[name]["environment"] if key.startswith("APP_")}
    assert given <= {f"APP_{field.upper()}" for field in Settings.model_fields}


@every_app
def test_traces_go_where_the_shell_says_and_nowhere_by_default(name: str) -> None:
    given = {key: value for key, value in SERVICES[name]["environment"].items() if key.startswith("OTEL_")}
    assert given["OTEL_EXPORTER_OTLP_ENDPOINT"] is None
    by_sdk = {"OTEL_EXPORTER_OTLP_HEADERS"}
    assert set(given) <= {f"OTEL_{field.upper()}" for field in TracingSettings.model_fields} | by_sdk
    assert SERVICES["jaeger"]["profiles"] == ["tracing"]


def test_plain_up_starts_no_replica_and_no_unprotected_app() -> None:
    assert SERVICES["replica"]["deploy"] == {"replicas": 0}
    assert SERVICES["app-unprotected"]["profiles"] == ["compare"]


def test_replicas_do_what_the_app_does() -> None:
    assert SERVICES["replica"]["environment"] == SERVICES["app"]["environment"]


def test_the_unprotected_app_has_its_own_keys_and_its_own_database_role() -> None:
    app, other = SERVICES["app"]["environment"], SERVICES["app-unprotected"]["environment"]
    assert other["APP_MODE"] == "none"
    assert other["APP_CACHE_KEY_PREFIX"] != app.get(
        "APP_CACHE_KEY_PREFIX", Settings.model_fields["cache_key_prefix"].default
    )
    assert "//unprotected:" in other["APP_DATABASE_URL"]
    assert other["APP_LOAD_DELAY_MS"] == app["APP_LOAD_DELAY_MS"]


def test_loom_stands_before_the_app_and_its_flags_are_flags() -> None:
    words = SERVICES["loom"]["command"]
    assert words[:4] == ["python", "-m", "app", "loom"]
    rest = [word for word in words[4:] if word != "--ui-open"]
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    assert given["--backend"] == "app:50051"
    flags = typer.Typer()
    flags.command()(loom)
    known = {name for option in typer.main.get_command(flags).params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known
    # Without a token, because the port is published on loopback alone.
    assert "--ui-open" in words
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["loom"]["ports"])
    # Its sessions outlive the container, and the folder is its own in the image.
    home = SERVICES["loom"]["environment"]["HOME"]
    assert SERVICES["loom"]["volumes"] == [f"loom:{home}"]
    assert re.search(rf"install --directory --owner app .*{home}$", DOCKERFILE, re.MULTILINE)
    assert float(given["--stop-s"]) < float(SERVICES["loom"]["stop_grace_period"].removesuffix("s"))


def test_redis_is_a_bounded_cache_that_keeps_nothing() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "allkeys-lru"
    assert int(options["--maxmemory"].removesuffix("mb")) < int(SERVICES["redis"]["mem_limit"].removesuffix("m"))
    assert (options["--save"], options["--appendonly"]) == ("", "no")


def test_volumes_are_named_and_bind_mounts_are_read_only_and_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, options = volume.partition(":")
            if source.startswith("./"):
                assert options.endswith(":ro"), volume
                assert (ROOT / source).exists(), volume
            else:
                assert source in COMPOSE["volumes"], volume


def test_dependencies_are_installed_from_the_lock_with_hashes() -> None:
    assert "--require-hashes -r /tmp/runtime.lock" in DOCKERFILE
    lock = (ROOT / "requirements" / "runtime.lock").read_text()
    pinned = re.findall(r"^[a-z0-9-]+(?:\[[a-z,]+\])?==", lock, re.MULTILINE)
    assert pinned
    assert len(re.findall(r"^    --hash=sha256:", lock, re.MULTILINE)) >= len(pinned)


def test_prometheus_scrapes_the_app_by_the_alias_that_its_replicas_share() -> None:
    config = yaml.safe_load((ROOT / "prometheus.yaml").read_text())
    assert config["global"]["scrape_interval"] == "5s"
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {"app", "app-unprotected", "loom", "prometheus"}
    assert jobs["loom"]["static_configs"] == [{"targets": ["loom:9998"]}]
    names = jobs["app"]["dns_sd_configs"][0]["names"]
    for name in ("app", "replica"):
        assert SERVICES[name]["networks"]["default"]["aliases"] == names
    assert jobs["app-unprotected"]["dns_sd_configs"][0]["names"] == ["app-unprotected"]
    assert "aliases" not in str(SERVICES["app-unprotected"].get("networks", ""))
