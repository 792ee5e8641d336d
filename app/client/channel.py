"""Connections to an endpoint."""

from __future__ import annotations

import grpc

from app.client.endpoint import Endpoint
from app.client.retries import service_config

Metadata = tuple[tuple[str, str], ...]

FIRST_RECONNECT_MS, LONGEST_RECONNECT_MS = 100, 5_000
"""Pauses between tries to connect. By default they are 1 s and 2 min: a service that is back would go unseen."""
CONNECT_TIMEOUT_MS = 5_000


def open_channel(endpoint: Endpoint, *, own_connections: bool = False) -> grpc.aio.Channel:
    """A channel that connects when it is first used. Belongs to the running event loop; close it.

    Channels of one process to one endpoint share connections, unless they have their own.
    """
    compression = grpc.Compression.Gzip if endpoint.gzip else None
    options = [*_options(endpoint), ("grpc.use_local_subchannel_pool", int(own_connections))]
    if endpoint.tls is None:
        return grpc.aio.insecure_channel(endpoint.target, options=options, compression=compression)
    tls = endpoint.tls
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    return grpc.aio.secure_channel(endpoint.target, credentials, options=options, compression=compression)


def metadata(endpoint: Endpoint) -> Metadata:
    """What goes along with every call."""
    return () if endpoint.token is None else (("authorization", f"Bearer {endpoint.token}"),)


def _options(endpoint: Endpoint) -> list[tuple[str, str | int]]:
    return [
        ("grpc.service_config", service_config(retries=endpoint.retries)),
        # Not from DNS: what is tried again is this client's own business.
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.max_receive_message_length", endpoint.max_receive_bytes),
        ("grpc.max_send_message_length", endpoint.max_send_bytes),
        ("grpc.keepalive_time_ms", round(endpoint.keepalive_time_s * 1e3)),
        ("grpc.keepalive_timeout_ms", round(endpoint.keepalive_timeout_s * 1e3)),
        # Without it an unanswered probe is waited for a minute, whatever the one before says.
        ("grpc.http2.ping_timeout_ms", round(endpoint.keepalive_timeout_s * 1e3)),
        # A connection that died while nobody called is found before the next call has to.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.dns_min_time_between_resolutions_ms", round(endpoint.resolve_interval_s * 1e3)),
        ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", LONGEST_RECONNECT_MS),
        # A proxy in the environment (http_proxy) is for the way out of this machine.
        ("grpc.enable_http_proxy", int(not endpoint.is_local)),
    ]
