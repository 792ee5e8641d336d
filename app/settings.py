"""Every setting of the template service, once, typed, with its unit. The environment is read here only."""

from __future__ import annotations

import difflib
import os
import re
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import Field, PostgresDsn, RedisDsn, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_PREFIX = "APP_"

S = TypeVar("S", bound=BaseSettings)

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


_MAX_PEERS = 16
_PEER_NAME = re.compile(r"[A-Za-z0-9-]{1,32}")
_SERVER_URL = re.compile(r"http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?/?", re.ASCII)
_MAX_TOKENS = 100
_MIN_TOKEN_CHARS = 16
_CLIENT_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile(rf"[A-Za-z0-9._~+/-]{{{_MIN_TOKEN_CHARS},510}}={{0,2}}")  # RFC 6750's b64token


class Mode(StrEnum):
    """How reads are protected against a stampede; each mode is a composition of the same parts."""

    NONE = "none"
    MUTEX = "mutex"
    SINGLEFLIGHT = "singleflight"
    FLEET = "fleet"
    FULL = "full"


class SettingsError(Exception):
    """The environment holds a setting that cannot be used; the message names it and says what would be right."""


class Settings(BaseSettings):
    """The template service's settings, read from environment variables named `APP_` + the field in capitals."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    mode: Mode = Field(
        Mode.FULL, description="Protection of the read path: `none`, `mutex`, `singleflight`, `fleet` or `full`."
    )

    http_host: str = Field("127.0.0.1", min_length=1, description="Address that HTTP listens on.")
    http_port: Port = Field(8080, description="HTTP port; 0 takes any free one.")
    http_max_body_bytes: int = Field(1_048_576, ge=1, description="Largest request body; a larger one gets 413.")
    http_max_age_s: int = Field(
        0, ge=0, description="`max-age` that clients are told; 0 tells them to revalidate each time (`no-cache`)."
    )
    http_receive_timeout_s: Seconds = Field(
        10.0, description="How long a client may take to send a request's head, and then its body."
    )
    grpc_host: str = Field("127.0.0.1", min_length=1, description="Address that gRPC listens on.")
    grpc_port: Port = Field(50051, description="gRPC port; 0 takes any free one.")
    grpc_reflection: bool = Field(True, description="Tell clients of the services by reflection, v1 and v1alpha.")
    grpc_max_receive_bytes: int = Field(
        1_048_576, ge=1024, le=1 << 30, description="Largest request message, decompressed."
    )
    grpc_max_send_bytes: int = Field(
        4_194_304, ge=1024, le=1 << 30, description="Largest response message; clients take 4 MiB by default."
    )
    grpc_max_metadata_bytes: int = Field(
        16_384, ge=1024, le=1 << 20, description="Most metadata of a call, names and 32 bytes an entry included."
    )
    grpc_max_streams: int = Field(
        1024, ge=1, le=1_000_000, description="Most calls at a time on one connection; clients queue those past it."
    )
    grpc_compression_min_bytes: int = Field(
        1024,
        ge=0,
        le=1 << 30,
        description="Smallest response message that is compressed where the client accepts that; 0 compresses none.",
    )
    grpc_keepalive_time_s: Seconds = Field(60.0, description="How long a connection may be silent before it is probed.")
    grpc_keepalive_timeout_s: Seconds = Field(
        20.0, description="How long a probe may stay unanswered before the connection is given up."
    )
    grpc_min_ping_interval_s: Seconds = Field(
        10.0, description="Clients whose own probes come more often than this are told to go."
    )
    grpc_max_connection_age_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="Age, varied by up to a tenth, at which a connection's client is told to come back, and so finds "
        "new replicas; calls under way finish; 0 for never.",
    )
    grpc_max_connection_age_grace_s: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="How long those calls may take until they are cut off; 0 for no bound, though clients never read.",
    )
    grpc_tls_cert_file: str = Field(
        "", description="PEM file with the server's certificate and those up to the root; empty for no TLS."
    )
    grpc_tls_key_file: str = Field("", description="PEM file with its private key, not encrypted.")
    grpc_tls_client_ca_file: str = Field(
        "", description="PEM file with the certificates that must have signed clients' own (mTLS); empty asks for none."
    )
    grpc_tokens: str = Field(
        "",
        description="Secret: the bearer tokens that gRPC calls must come with, each behind its client's name, as in "
        "`name:token,name:token`; empty asks for none.",
        repr=False,
    )
    grpc_open_health: bool = Field(True, description="gRPC health checks need no token.")
    grpc_open_reflection: bool = Field(True, description="gRPC reflection needs no token.")
    grpc_rate_limit_per_s: float = Field(
        0.0, ge=0, le=1_000_000, description="gRPC calls a second that are taken from one client; 0 for no limit."
    )
    grpc_rate_burst: int = Field(100, ge=1, le=1_000_000, description="Calls that it may make at once after a rest.")
    grpc_access_log: str = Field(
        "failed", pattern=r"^(off|failed|all)$", description="Which gRPC calls get a log line each, at level `info`."
    )

    database_url: str = Field(
        "postgresql://app:app@127.0.0.1:5432/app", description="PostgreSQL, as a `postgresql://` URL.", repr=False
    )
    database_pool_min: int = Field(
        2,
        ge=0,
        description="Connections kept open to PostgreSQL. To open many in a flood of misses takes the processor from "
        "the hits; as many as `APP_BULKHEAD_CONCURRENT` are never opened then.",
    )
    database_pool_max: int = Field(20, ge=1, description="Most connections to PostgreSQL.")
    database_connect_timeout_s: Seconds = Field(2.0, description="Longest wait for a new connection.")
    database_acquire_timeout_s: Seconds = Field(5.0, description="Longest wait for a free connection of the pool.")
    database_statement_timeout_s: Seconds = Field(5.0, description="Longest run of one statement.")
    database_start_timeout_s: Seconds = Field(10.0, description="How long to try for PostgreSQL at start.")
    database_migrate: bool = Field(True, description="Apply pending migrations at start.")

    import_concurrent: int = Field(
        0,
        ge=0,
        description="Most imports at a time, each with a connection of the pool; more are refused. "
        "0 for a quarter of the pool, at least one.",
    )
    import_idle_timeout_s: Seconds = Field(10.0, description="Longest wait of an import for its caller's next message.")
    import_timeout_s: Seconds = Field(600.0, description="Longest time of an import, its caller's pauses included.")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey, as a `redis://` URL; a cluster as `redis+cluster://`, with `host:port` of one or "
        "more of its nodes, joined by commas.",
        repr=False,
    )
    redis_pool_max: int = Field(
        16, ge=1, description="Most connections to Redis, and so most operations at a time; the rest wait their turn."
    )
    redis_timeout_s: Seconds = Field(0.25, description="Longest wait on Redis for one operation, connecting included.")
    redis_breaker_failures: int = Field(5, ge=1, description="Failures in a row that open the breaker on Redis.")
    redis_breaker_open_s: Seconds = Field(1.0, description="How long the breaker stays open before a probe.")

    cache_key_prefix: str = Field(
        "template", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="First part of every key in Redis."
    )
    cache_ttl_s: Seconds = Field(30.0, description="Longest life of a cached value.")
    cache_ttl_jitter: float = Field(
        0.1, ge=0, lt=1, description="Share of the TTL by which lives are shortened at random, so that keys part ways."
    )
    negative_ttl_s: float = Field(
        2.0, ge=0, le=3600, description="Longest life of the knowledge that an id does not exist; 0 does not keep it."
    )
    singleflight_max_waiters: int = Field(
        10_000, ge=0, description="Most callers waiting on one flight, past which they get 503; 0 for no bound."
    )
    singleflight_wait_timeout_s: Seconds = Field(10.0, description="Longest wait of a caller on a flight.")
    load_delay_ms: int = Field(
        0, ge=0, le=60_000, description="Delay added to the load query, so that a stampede shows on a fast machine."
    )

    l1_enabled: bool = Field(True, description="Mode `full`: keep values in this process.")
    l1_max_entries: int = Field(10_000, ge=1, description="Most values kept in this process.")
    l1_max_bytes: int = Field(67_108_864, ge=1, description="Most bytes that those values take, by estimate.")
    grace_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="Mode `full`: how long past its life a value is served while it is loaded anew.",
    )
    stale_if_error_s: float = Field(
        300.0, ge=0, le=86_400, description="Mode `full`: how long past its life a value is served where a load fails."
    )
    soft_deadline_s: Seconds = Field(
        0.5, description="Mode `full`: how long a read with such a value at hand waits for the load."
    )
    early_refresh_beta: float = Field(
        1.0, ge=0, le=100, description="Mode `full`: XFetch's β; above 1 refreshes earlier, 0 never."
    )
    load_deadline_s: Seconds = Field(5.0, description="Longest time of a load, whoever waits for it.")
    lease_enabled: bool = Field(True, description="Modes `fleet` and `full`: one loader a key across all replicas.")
    lease_s: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Modes `fleet` and `full`: longest life of a lease; 0 for twice the load deadline.",
    )
    bulkhead_concurrent: int = Field(
        16, ge=0, description="Mode `full`: most loads at a time in this process; 0 for no bound but the pool."
    )
    bulkhead_queued: int = Field(1_000, ge=0, description="Mode `full`: most loads waiting for their turn.")
    bulkhead_timeout_s: Seconds = Field(2.0, description="Mode `full`: longest wait of a load for its turn.")
    database_breaker_failures: int = Field(
        5, ge=0, description="Mode `full`: failed loads in a row that open the breaker on PostgreSQL; 0 for no breaker."
    )
    database_breaker_open_s: Seconds = Field(1.0, description="How long that breaker stays open before a probe.")
    coherence_enabled: bool = Field(True, description="Mode `full`: follow the database's announcements of changes.")
    coherence_grace_s: Seconds = Field(
        1.0, description="How long a loss of those announcements changes nothing, and a value is trusted without them."
    )
    clock_skew_s: float = Field(1.0, ge=0, le=60, description="How far apart the clocks of replicas may be.")

    watch_max_streams: int = Field(
        4_096, ge=1, description="Most calls that watch templates at a time; one more gets RESOURCE_EXHAUSTED."
    )
    watch_max_ids: int = Field(
        500_000, ge=1, description="Most templates that they watch together, counted once for each call."
    )

    live_peers: str = Field(
        "",
        description="Other applications, or replicas, that the live page shows beside this one, as in "
        "`app-unprotected=http://host:8080,app=http://host:8081`; those of one name are added up, `app` is this one's.",
    )
    live_links: str = Field(
        "",
        description="Other pages that the live page links to, as in `Grafana=http://localhost:3000`; commas between.",
    )
    live_reports_dir: str = Field(
        "", description="Folder whose reports of scenarios, lab and demo the live page links to; empty for none."
    )
    live_controls_url: str = Field(
        "",
        description="Where the live page's actions are done, as `http://127.0.0.1:port`; empty allows none. "
        "`make demo` and `make up` set it.",
    )
    live_controls_token: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_-]{16,256})?$",
        description="Secret: what this application and who does those actions know each other by; empty has the "
        "application do none by itself.",
        repr=False,
    )
    drain_delay_s: float = Field(
        0.5, ge=0, le=300, description="After SIGTERM, how long to go on serving while `/ready` says 503."
    )
    drain_timeout_s: Seconds = Field(10.0, description="After that, how long requests in flight may take to finish.")
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$", description="Least severe level logged.")

    @field_validator("database_url")
    @classmethod
    def _is_postgres_url(cls, url: str) -> str:
        TypeAdapter(PostgresDsn).validate_python(url)
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, url: str) -> str:
        scheme, cluster, nodes = url.partition("+cluster://")
        for each in nodes.rpartition("@")[2].split(",") if cluster else [url]:
            if cluster and not each:
                raise ValueError("a cluster's URL reads redis+cluster://host:port,host:port")
            TypeAdapter(RedisDsn).validate_python(f"{scheme}://{each}" if cluster else each)
        # What follows the "?" are arguments of the client, which would undo the bounds that are set here, or break it.
        if "?" in url or "[" in url.rpartition("@")[0]:
            raise ValueError("must be redis://user:password@host:port/number, special characters percent-encoded")
        return url

    @field_validator("live_peers", "live_links")
    @classmethod
    def _are_named_urls(cls, urls: str) -> str:
        _named_urls(urls)
        return urls

    @field_validator("live_controls_url")
    @classmethod
    def _is_controls_url(cls, url: str) -> str:
        if url and not _is_url_of_server(url):
            raise ValueError("must read http://host:port")
        return url

    @field_validator("grpc_tokens")
    @classmethod
    def _are_tokens(cls, tokens: str) -> str:
        _tokens_by_name(tokens)
        return tokens

    @property
    def peers(self) -> list[tuple[str, str]]:
        """The name and URL of each peer of the live page."""
        return _named_urls(self.live_peers)

    @property
    def links(self) -> list[tuple[str, str]]:
        """The title and URL of each page that the live page links to."""
        return _named_urls(self.live_links)

    @property
    def grpc_tokens_by_name(self) -> dict[str, str]:
        """The bearer tokens by their clients' names."""
        return _tokens_by_name(self.grpc_tokens)

    @property
    def lease_life_s(self) -> float:
        """The longest life of a lease: as set, or twice the load deadline."""
        return self.lease_s or 2 * self.load_deadline_s

    @property
    def imports_at_once(self) -> int:
        """The most imports at a time: as set, or a quarter of the pool's connections."""
        return self.import_concurrent or max(1, self.database_pool_max // 4)

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.database_pool_min > self.database_pool_max:
            raise ValueError("APP_DATABASE_POOL_MIN must not be above APP_DATABASE_POOL_MAX")
        if self.import_concurrent >= self.database_pool_max:
            raise ValueError("APP_IMPORT_CONCURRENT must be below APP_DATABASE_POOL_MAX, or imports can take all of it")
        if self.load_delay_ms >= 1000 * self.database_statement_timeout_s:
            raise ValueError("APP_LOAD_DELAY_MS must be below APP_DATABASE_STATEMENT_TIMEOUT_S, or every load fails")
        if bool(self.grpc_tls_cert_file) != bool(self.grpc_tls_key_file):
            raise ValueError("APP_GRPC_TLS_CERT_FILE and APP_GRPC_TLS_KEY_FILE need each other")
        if self.grpc_tls_client_ca_file and not self.grpc_tls_cert_file:
            raise ValueError("APP_GRPC_TLS_CLIENT_CA_FILE needs APP_GRPC_TLS_CERT_FILE and APP_GRPC_TLS_KEY_FILE")
        if self.live_controls_url and not self.live_controls_token:
            raise ValueError("APP_LIVE_CONTROLS_URL needs APP_LIVE_CONTROLS_TOKEN")
        return self


def _named_urls(text: str) -> list[tuple[str, str]]:
    """Raises `ValueError`."""
    found = []
    for number, item in enumerate(text.split(",") if text.strip() else [], 1):
        name, equals, url = item.strip().partition("=")
        if not equals or not _PEER_NAME.fullmatch(name) or not _is_url_of_server(url):
            raise ValueError(f"entry {number} must read name=http://host:port, the name of letters, digits and dashes")
        found.append((name, url))
    if len(found) > _MAX_PEERS:
        raise ValueError(f"at most {_MAX_PEERS} entries, there are {len(found)}")
    return found


def _is_url_of_server(url: str) -> bool:
    found = _SERVER_URL.fullmatch(url)
    return found is not None and int(found["port"] or 80) <= 65_535


def _tokens_by_name(text: str) -> dict[str, str]:
    """Raises `ValueError` without a word of any token."""
    tokens: dict[str, str] = {}
    for number, item in enumerate(text.split(",") if text.strip() else [], 1):
        name, colon, token = item.strip().partition(":")
        if not colon or not _CLIENT_NAME.fullmatch(name):
            raise ValueError(f"entry {number} must read name:token, the name of letters, digits, dot, dash, underscore")
        if not _TOKEN.fullmatch(token):
            raise ValueError(
                f"the token of entry {number} must have {_MIN_TOKEN_CHARS} to 512 characters: letters, digits, -._~+/="
            )
        if name in tokens:
            raise ValueError(f"entry {number} has the name of one before it")
        if token in tokens.values():
            raise ValueError(f"entry {number} has the token of one before it")
        tokens[name] = token
    if len(tokens) > _MAX_TOKENS:
        raise ValueError(f"at most {_MAX_TOKENS} tokens, there are {len(tokens)}")
    return tokens


def load_settings() -> Settings:
    """The settings of this process' environment.

    Raises `SettingsError`, in one line, naming each variable that cannot be used and why.
    """
    return from_environment(Settings)


def from_environment(cls: type[S]) -> S:
    """As `load_settings`, of any kind of settings."""
    try:
        return cls()
    except ValidationError as error:
        raise SettingsError("; ".join(_complaints(error, cls.model_config["env_prefix"]))) from None


def unknown_variables() -> list[str]:
    """One sentence for each `APP_` variable of the environment that is no setting, naming the nearest one."""
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    sentences = []
    for name in sorted(os.environ):
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            sentences.append(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    return sentences


def _complaints(error: ValidationError, prefix: str) -> list[str]:
    complaints = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = prefix + str(problem["loc"][0]).upper() if problem["loc"] else ""
        what = problem["msg"].removeprefix("Value error, ")
        complaints.append(f"{where}: {what}" if where else what)
    return complaints
