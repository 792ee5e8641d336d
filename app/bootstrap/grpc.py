"""The gRPC server that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from opentelemetry.trace import Tracer

from app.api.grpc.hits import Fresh
from app.api.grpc.interceptors.access_log import AccessLog
from app.api.grpc.interceptors.stack import CallPolicy, interceptors
from app.api.grpc.options import ServerOptions
from app.api.grpc.server import GrpcServer
from app.api.grpc.tls import ServerTls, TlsFiles
from app.service import TemplateService
from app.settings import Settings
from app.telemetry.metrics import Metrics


def grpc_tls(settings: Settings, metrics: Metrics) -> ServerTls | None:
    """Raises `TlsError` where a file that is set can't be used."""
    if not settings.grpc_tls_cert_file:
        return None
    client_ca = settings.grpc_tls_client_ca_file
    files = TlsFiles(
        Path(settings.grpc_tls_cert_file), Path(settings.grpc_tls_key_file), Path(client_ca) if client_ca else None
    )
    return ServerTls(files, metrics.certificate_reloaded)


def grpc_server(
    settings: Settings,
    service: TemplateService,
    *,
    fresh: Fresh,
    tls: ServerTls | None,
    metrics: Metrics,
    tracer: Tracer | None,
) -> GrpcServer:
    """Not yet listening."""
    return GrpcServer(
        service,
        settings.grpc_host,
        settings.grpc_port,
        interceptors=interceptors(metrics.calls, _policy(settings), tracer),
        fresh=fresh,
        options=_options(settings),
        tls=tls,
    )


def _policy(settings: Settings) -> CallPolicy:
    return CallPolicy(
        access_log=AccessLog(settings.grpc_access_log),
        tokens=settings.grpc_tokens_by_name,
        open_health=settings.grpc_open_health,
        open_reflection=settings.grpc_open_reflection,
        rate_per_s=settings.grpc_rate_limit_per_s,
        rate_burst=settings.grpc_rate_burst,
    )


def _options(settings: Settings) -> ServerOptions:
    return ServerOptions(
        reflection=settings.grpc_reflection,
        max_receive_bytes=settings.grpc_max_receive_bytes,
        max_send_bytes=settings.grpc_max_send_bytes,
        max_metadata_bytes=settings.grpc_max_metadata_bytes,
        max_streams=settings.grpc_max_streams,
        compression_min_bytes=settings.grpc_compression_min_bytes,
        keepalive_time_s=settings.grpc_keepalive_time_s,
        keepalive_timeout_s=settings.grpc_keepalive_timeout_s,
        min_ping_interval_s=settings.grpc_min_ping_interval_s,
        max_connection_age_s=settings.grpc_max_connection_age_s,
        max_connection_age_grace_s=settings.grpc_max_connection_age_grace_s,
    )
