"""The gRPC server: one port, in the event loop that HTTP runs in."""

from __future__ import annotations

import asyncio
import socket

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from app.api.grpc.health import HealthServicer
from app.api.grpc.servicer import TemplateReader, TemplateServicer
from app.proto.template.v1 import template_pb2
from app.proto.template.v1.template_pb2_grpc import add_TemplateServiceServicer_to_server

SERVICE = template_pb2.DESCRIPTOR.services_by_name["TemplateService"].full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

MAX_RECEIVE_BYTES = 1 << 20
"""Largest request message: the longest template in UTF-8 is a quarter of it."""
MAX_SEND_BYTES = 4 << 20
"""Largest response message: what clients accept by default."""
MAX_METADATA_BYTES = 16 << 10
"""Most metadata of a call, names included; a call with more is refused before it reaches a method."""
MAX_STREAMS = 1024
"""Most calls at a time on one connection; clients queue those past it."""
KEEPALIVE_TIME_MS = 60_000
"""How long a connection may be silent before it is probed."""
KEEPALIVE_TIMEOUT_MS = 20_000
"""How long a probe may stay unanswered before the connection is given up, and its calls with it."""
MIN_PING_INTERVAL_MS = 10_000
"""Clients that probe more often than this are told to go."""
ENDLESS_S = 1e6

_OPTIONS = (
    # With it (the default on Linux) a second server on a port that is taken starts, and gets half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_SEND_BYTES),
    # Below the absolute limit calls would be refused at random from the soft limit on; so both are the same.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
)


class GrpcServer:
    """Serves `TemplateService`, health and reflection. Starts NOT_SERVING: health follows `set_serving`.

    Belongs to the event loop in which `start` was called.
    """

    def __init__(self, service: TemplateReader, host: str, port: int) -> None:
        self._service = service
        self._host = host
        self._port = port
        self._server: grpc.aio.Server | None = None
        self._health = HealthServicer([SERVICE])
        self._stopping: asyncio.Task[None] | None = None
        self._is_cut_off = False

    async def start(self) -> int:
        """Listens, and returns the port: the one asked for, or with 0 the one that was free.

        Raises `OSError`, naming the address, where it cannot be listened on.
        """
        server = grpc.aio.server(options=_OPTIONS)
        add_TemplateServiceServicer_to_server(TemplateServicer(self._service), server)  # type: ignore[no-untyped-call]
        add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME], server)
        port = await self._bind(server)
        await server.start()
        self._server = server
        return port

    def set_serving(self, serving: bool) -> None:
        """What health says from now on, of the whole server and of the template service."""
        self._health.set_serving(serving)

    async def drain(self, timeout_s: float) -> None:
        """Health turns NOT_SERVING, clients are told to go (GOAWAY), calls in flight finish.

        Those that are still running after `timeout_s` seconds are cancelled. Returns when none is left to answer. A
        second drain with less patience hastens the first. Has no effect on a server that was not started.

        gRPC itself cancels a call that arrives in the instant in which the GOAWAY goes out: `set_serving(False)` some
        time before keeps clients that watch health from sending one.
        """
        self._health.close()
        if self._server is None:
            return
        if self._stopping is None:
            # Without end, and cut short below: gRPC crashes the process where the periods of two stops end together.
            self._stopping = asyncio.create_task(self._server.stop(ENDLESS_S))
        await asyncio.wait({self._stopping}, timeout=timeout_s)
        if not self._stopping.done() and not self._is_cut_off:
            self._is_cut_off = True
            await self._server.stop(None)
        await asyncio.wait({self._stopping})
        self._stopping.result()

    async def _bind(self, server: grpc.aio.Server) -> int:
        address = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        try:
            # gRPC doesn't say why it cannot bind, except to stderr: a plain socket does.
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, where in found:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind(where)
                    probe.listen()
            return int(server.add_insecure_port(address))
        except OSError as error:
            raise OSError(error.errno, f"gRPC can't listen on {address}: {error.strerror}") from error
        except RuntimeError as error:
            raise OSError(f"gRPC can't listen on {address}") from error
