from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from app.settings import ENV_PREFIX, Mode, Settings, SettingsError, load_settings, unknown_variables
from app.tracing_settings import OTEL_PREFIX, load_tracing_settings

SECRET = "hunter2-s3cret"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith((ENV_PREFIX, OTEL_PREFIX)):
            monkeypatch.delenv(name)


BAD = {
    "MODE": ["", "Singleflight", "fuller", SECRET],
    "HTTP_HOST": [""],
    "HTTP_PORT": ["", "http", "-1", "65536", "80.5", "8080 8081", SECRET],
    "HTTP_MAX_BODY_BYTES": ["0", "-1", "1MB", "1e6x"],
    "HTTP_MAX_AGE_S": ["-1", "1.5"],
    "HTTP_RECEIVE_TIMEOUT_S": ["0", "-1", "nan", "inf", "3601", "10s"],
    "GRPC_PORT": ["70000"],
    "GRPC_TOKENS": [
        SECRET,
        f"{SECRET}:",
        f"{SECRET}:short",
        f"a b:{SECRET}-0123456789",
        f"a:{SECRET}-0123456789,",
        f"a:{SECRET} 0123456789",
        f"a:{SECRET}-0123456789,a:{SECRET}-9876543210",
        f"a:{SECRET}-0123456789,b:{SECRET}-0123456789",
        f"a:{SECRET}{'x' * 512}",
        ",".join(f"a{number}:{SECRET}-0123456789-{number}" for number in range(101)),
    ],
    "GRPC_RATE_LIMIT_PER_S": ["-1", "nan", "inf"],
    "GRPC_RATE_BURST": ["0"],
    "GRPC_ACCESS_LOG": ["", "some"],
    "DATABASE_URL": ["", SECRET, f"mysql://u:{SECRET}@h/db", f"postgresql://u:{SECRET}@h:port/db", "postgresql://"],
    "DATABASE_POOL_MIN": ["-1", "two"],
    "DATABASE_POOL_MAX": ["0"],
    "DATABASE_MIGRATE": ["maybe"],
    "DATABASE_STATEMENT_TIMEOUT_S": ["0"],
    "REDIS_URL": [
        "",
        SECRET,
        f"http://:{SECRET}@h",
        f"redis://:{SECRET}@h:99999/0",
        f"redis://:{SECRET}@h/0?bogus=1",
        f"redis://:{SECRET}@h/0?socket_timeout=abc",
        f"redis://u:{SECRET}[@h/0",
    ],
    "REDIS_TIMEOUT_S": ["0", "NaN"],
    "REDIS_BREAKER_FAILURES": ["0"],
    "CACHE_KEY_PREFIX": ["", "a b", "a:b", "{a}", "a" * 65, "a\nb"],
    "CACHE_TTL_S": ["0", "-5", "infinity"],
    "CACHE_TTL_JITTER": ["-0.1", "1", "nan"],
    "SINGLEFLIGHT_MAX_WAITERS": ["-1"],
    "LOAD_DELAY_MS": ["-1", "60001", "0.5"],
    "LIVE_PEERS": [
        *(SECRET, "=http://h:1", f"a b=http://{SECRET}:1", "a=https://h:1", "a=http://h:1/path", "a=http://h:1,"),
        *(f"a=http://u:{SECRET}@h", "a=http://h:99999", "a=http://[::1", "a" * 33 + "=http://h:1"),
        ",".join(f"a{number}=http://h:1" for number in range(17)),
    ],
    "LIVE_LINKS": [SECRET, f"a b=http://{SECRET}:1", "a=javascript:alert(1)", "Loom=http://h:1/path"],
    "LIVE_CONTROLS_URL": [SECRET, "https://h:1", "http://h:99999", f"http://u:{SECRET}@h", "http://h/path"],
    "LIVE_CONTROLS_TOKEN": [SECRET[:3], f"{SECRET}-0123456789 ", f"{SECRET}-0123456789\n", "x" * 257],
    "DRAIN_DELAY_S": ["-1", "301", "nan"],
    "LOG_LEVEL": ["", "INFO", "loud", "info\n"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_value_that_cannot_be_used_is_named_in_one_line_without_telling_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(ENV_PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert message.startswith(f"{ENV_PREFIX}{name}: ")
    assert len(message) > len(f"{ENV_PREFIX}{name}: ") + 5
    assert len(message.splitlines()) == 1
    assert SECRET not in message
    assert "pydantic" not in message
    assert caught.value.__cause__ is None


def test_all_that_cannot_be_used_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HTTP_PORT", "x"), ("MODE", "y"), ("LOG_LEVEL", "z")):
        monkeypatch.setenv(ENV_PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert [part.partition(":")[0] for part in str(caught.value).split("; ")] == [
        "APP_MODE",
        "APP_HTTP_PORT",
        "APP_LOG_LEVEL",
    ]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"DATABASE_POOL_MIN": "30"}, ("APP_DATABASE_POOL_MIN", "APP_DATABASE_POOL_MAX")),
        ({"DATABASE_POOL_MIN": "2", "DATABASE_POOL_MAX": "1"}, ("APP_DATABASE_POOL_MIN", "APP_DATABASE_POOL_MAX")),
        ({"IMPORT_CONCURRENT": "20"}, ("APP_IMPORT_CONCURRENT", "APP_DATABASE_POOL_MAX")),
        ({"LOAD_DELAY_MS": "5000"}, ("APP_LOAD_DELAY_MS", "APP_DATABASE_STATEMENT_TIMEOUT_S")),
        (
            {"LOAD_DELAY_MS": "50", "DATABASE_STATEMENT_TIMEOUT_S": "0.05"},
            ("APP_LOAD_DELAY_MS", "APP_DATABASE_STATEMENT_TIMEOUT_S"),
        ),
        ({"GRPC_TLS_CERT_FILE": "a.pem"}, ("APP_GRPC_TLS_CERT_FILE", "APP_GRPC_TLS_KEY_FILE")),
        ({"GRPC_TLS_KEY_FILE": "a.key"}, ("APP_GRPC_TLS_CERT_FILE", "APP_GRPC_TLS_KEY_FILE")),
        ({"LIVE_CONTROLS_URL": "http://127.0.0.1:1"}, ("APP_LIVE_CONTROLS_URL", "APP_LIVE_CONTROLS_TOKEN")),
        ({"GRPC_TLS_CLIENT_CA_FILE": "ca.pem"}, ("APP_GRPC_TLS_CLIENT_CA_FILE", "APP_GRPC_TLS_CERT_FILE")),
    ],
)
def test_values_that_do_not_fit_together_are_both_named(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], names: tuple[str, str]
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(ENV_PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert all(name in str(caught.value) for name in names)
    assert len(str(caught.value).splitlines()) == 1


def test_without_any_variable_all_settings_have_their_defaults() -> None:
    settings = load_settings()
    assert settings.mode is Mode.FULL
    assert settings == Settings.model_construct()


def test_variables_are_read_whatever_their_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_HTTP_PORT", "1234")
    monkeypatch.setenv("app_grpc_port", "4321")
    monkeypatch.setenv("APP_MODE", "none")
    settings = load_settings()
    assert (settings.http_port, settings.grpc_port, settings.mode) == (1234, 4321, Mode.NONE)


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"postgresql://u:{SECRET}@h/db")
    monkeypatch.setenv("APP_REDIS_URL", f"rediss://u:{SECRET}@h/0")
    settings = load_settings()
    assert SECRET in settings.database_url
    assert SECRET in settings.redis_url
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_settings().http_port = 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("APP_HTP_PORT", "APP_HTP_PORT is no setting; did you mean APP_HTTP_PORT?"),
        ("APP_CACHE_TTL", "APP_CACHE_TTL is no setting; did you mean APP_CACHE_TTL_S?"),
        ("app_cache_ttl", "app_cache_ttl is no setting; did you mean APP_CACHE_TTL_S?"),
        ("APP_ZZZZZZZZZZZZ", "APP_ZZZZZZZZZZZZ is no setting"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest_that_is(
    monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("APP_HTTP_PORT", "1")
    monkeypatch.setenv("APPLE_PORT", "1")
    assert unknown_variables() == [sentence]


TRACING_BAD = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["jaeger:4317", "grpc://jaeger:4317", "http://", "http://h:port", "http://h:99999"],
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": [f"http://user:{SECRET}@h:4317", f"http://{SECRET}@h"],
    "OTEL_EXPORTER_OTLP_PROTOCOL": ["http/json", SECRET],
    "OTEL_TRACES_EXPORTER": ["console", "otlp,console"],
    "OTEL_TRACES_SAMPLER": ["sometimes", "jaeger_remote"],
    "OTEL_TRACES_SAMPLER_ARG": ["2", "-0.1", "half", "nan"],
    "OTEL_SDK_DISABLED": ["perhaps"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in TRACING_BAD for value in TRACING_BAD[name]])
def test_a_tracing_variable_that_cannot_be_used_is_named_in_one_line_without_telling_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_tracing_settings()
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert len(message.splitlines()) == 1
    assert SECRET not in message


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"EXPORTER_OTLP_ENDPOINT": "http://h:4317"}, "http://h:4317"),
        ({"EXPORTER_OTLP_ENDPOINT": "http://[::1]:4317"}, "http://[::1]:4317"),
        ({"EXPORTER_OTLP_ENDPOINT": "https://h/", "EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "https://h/v1/traces"),
        ({"EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x", "EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http://t/x"),
        ({"EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1", "EXPORTER_OTLP_ENDPOINT": "http://h:4317"}, "http://t:1"),
        ({"EXPORTER_OTLP_ENDPOINT": "http://h:4317", "TRACES_EXPORTER": "none"}, None),
        ({"EXPORTER_OTLP_ENDPOINT": "http://h:4317", "SDK_DISABLED": "true"}, None),
    ],
)
def test_traces_go_where_the_variables_say_and_nowhere_without(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(OTEL_PREFIX + name, value)
    assert load_tracing_settings().endpoint == endpoint


def test_peers_are_read_by_name_in_their_order_and_a_name_may_stand_for_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().peers == []
    monkeypatch.setenv("APP_LIVE_PEERS", " app=http://a:1 , app=http://[::1]:2/,app-unprotected=http://b_c.d")
    assert load_settings().peers == [
        ("app", "http://a:1"),
        ("app", "http://[::1]:2/"),
        ("app-unprotected", "http://b_c.d"),
    ]


def test_links_are_read_by_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_LIVE_LINKS", "Grafana=http://localhost:3000,Loom=http://localhost:9998")
    assert load_settings().links == [("Grafana", "http://localhost:3000"), ("Loom", "http://localhost:9998")]


def test_tokens_are_read_by_their_clients_names_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_GRPC_TOKENS", f" web:{SECRET}-0123456789 , ci:{SECRET}+/~._== ")
    settings = load_settings()
    assert settings.grpc_tokens_by_name == {"web": f"{SECRET}-0123456789", "ci": f"{SECRET}+/~._=="}
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(("set_", "pool", "at_once"), [(0, 20, 5), (0, 8, 2), (0, 3, 1), (7, 8, 7)])
def test_imports_take_a_quarter_of_the_pool_unless_it_is_set(set_: int, pool: int, at_once: int) -> None:
    settings = Settings(import_concurrent=set_, database_pool_max=pool)  # type: ignore[call-arg]
    assert settings.imports_at_once == at_once
