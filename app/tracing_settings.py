"""Every setting of traces, by OpenTelemetry's names, read as the service's own are."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.settings import from_environment

OTEL_PREFIX = "OTEL_"


class TracingSettings(BaseSettings):
    """Whether traces are made and where they go, by OpenTelemetry's own variables: `OTEL_` + the field in capitals.

    Those that say how they are sent (headers, certificates, timeouts, queue) are the SDK's to read.
    """

    model_config = SettingsConfigDict(
        env_prefix=OTEL_PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    sdk_disabled: bool = Field(False, description="Make no traces, whatever else is set.")
    traces_exporter: Literal["otlp", "none"] = Field("otlp", description="`none` makes no traces.")
    exporter_otlp_endpoint: str = Field(
        "",
        description="Where traces go, as `http://host:port`, or `https://` for TLS; without it none are made. "
        "For `http/protobuf` the path `/v1/traces` is added.",
    )
    exporter_otlp_traces_endpoint: str = Field("", description="The same, taken as it is and before the other one.")
    exporter_otlp_protocol: Literal["grpc", "http/protobuf"] = Field("grpc", description="How they are sent.")
    exporter_otlp_traces_protocol: Literal["", "grpc", "http/protobuf"] = Field(
        "", description="The same, before the other one."
    )
    service_name: str = Field("", max_length=255, description="The name they go by; `template-service` unless set.")
    traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = Field("parentbased_always_on", description="Which requests are traced.")
    traces_sampler_arg: float = Field(1.0, ge=0, le=1, description="The share of them, with a `traceidratio`.")

    @field_validator("exporter_otlp_endpoint", "exporter_otlp_traces_endpoint")
    @classmethod
    def _is_endpoint(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fits = False
        if url and not fits:
            raise ValueError("must be http://host:port, or https://host:port for TLS")
        if "@" in url:
            raise ValueError("must hold no password; credentials go into OTEL_EXPORTER_OTLP_HEADERS")
        return url

    @property
    def protocol(self) -> Literal["grpc", "http/protobuf"]:
        """How traces are sent."""
        return self.exporter_otlp_traces_protocol or self.exporter_otlp_protocol

    @property
    def endpoint(self) -> str | None:
        """Where traces go; `None` where none are to be made."""
        if self.sdk_disabled or self.traces_exporter == "none":
            return None
        if self.exporter_otlp_traces_endpoint or not self.exporter_otlp_endpoint:
            return self.exporter_otlp_traces_endpoint or None
        base = self.exporter_otlp_endpoint
        return base if self.protocol == "grpc" else f"{base.rstrip('/')}/v1/traces"


def load_tracing_settings() -> TracingSettings:
    """As `app.settings.load_settings`, of what concerns traces."""
    return from_environment(TracingSettings)
