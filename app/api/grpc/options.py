"""What bounds the gRPC server and its connections, and how gRPC is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The bounds of a `GrpcServer`; by default those of the settings' defaults."""

    reflection: bool = True
    """Whether clients may ask what services there are."""
    max_receive_bytes: int = 1 << 20
    """Largest request message, decompressed. The longest template in UTF-8 is a quarter of it."""
    max_send_bytes: int = 4 << 20
    """Largest response message: what clients accept by default."""
    max_metadata_bytes: int = 16 << 10
    """Most metadata of a call, names included; a call with more is refused before it reaches a method."""
    max_streams: int = 1024
    """Most calls at a time on one connection; clients queue those past it."""
    compression_min_bytes: int = 1024
    """Smallest response message that is compressed where the client accepts that; 0 compresses none."""
    keepalive_time_s: float = 60.0
    """How long a connection may be silent before it is probed."""
    keepalive_timeout_s: float = 20.0
    """How long a probe may stay unanswered before the connection is given up, and its calls with it."""
    min_ping_interval_s: float = 10.0
    """Clients that probe more often than this are told to go (GOAWAY, too_many_pings)."""
    max_connection_age_s: float = 300.0
    """How old a connection may become before its client is told to go (GOAWAY); 0 for no bound. gRPC varies each
    connection's by up to a tenth, so that clients don't come back all at once."""
    max_connection_age_grace_s: float = 300.0
    """How long calls on such a connection may then take to end before they are cut off; 0 for no bound. It is the only
    bound on a call whose answer the client never reads."""

    def channel_arguments(self) -> list[tuple[str, int]]:
        """As gRPC takes them: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
        arguments = [
            # With it (the default on Linux) a second server on a port that is taken starts, and gets half of the
            # connections.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.max_receive_bytes),
            ("grpc.max_send_message_length", self.max_send_bytes),
            # Below the absolute limit calls would be refused at random from the soft limit on; so both are the same.
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.keepalive_time_ms", _ms(self.keepalive_time_s)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_s)),
            # Without it an unanswered probe is waited for a minute, whatever the one before says.
            ("grpc.http2.ping_timeout_ms", _ms(self.keepalive_timeout_s)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(self.min_ping_interval_s)),
        ]
        if self.compression_min_bytes:
            # A level applies to what the client says that it accepts, an algorithm to all. The lowest prefers gzip.
            arguments.append(("grpc.default_compression_level", 1))
        if self.max_connection_age_s:
            arguments.append(("grpc.max_connection_age_ms", _ms(self.max_connection_age_s)))
            if self.max_connection_age_grace_s:
                arguments.append(("grpc.max_connection_age_grace_ms", _ms(self.max_connection_age_grace_s)))
        return arguments


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
