"""The gRPC server: one port, in the event loop that HTTP runs in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from app.api.grpc.call import Interceptor
from app.api.grpc.chain import Chain
from app.api.grpc.gate import Gate
from app.api.grpc.health import HealthServicer
from app.api.grpc.hits import Fresh, Hits
from app.api.grpc.interceptors.compression import Compression
from app.api.grpc.interceptors.failures import Failures
from app.api.grpc.options import ServerOptions
from app.api.grpc.reflection import REFLECTION_SERVICES, Descriptions, ReflectionServicer
from app.api.grpc.servicer import Templates, TemplateServicer
from app.api.grpc.tls import ServerTls
from app.proto.template.v1 import template_pb2
from app.proto.template.v1.template_pb2_grpc import add_TemplateServiceServicer_to_server

SERVICE = template_pb2.DESCRIPTOR.services_by_name["TemplateService"].full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

ENDLESS_S = 1e6


class GrpcServer:
    """Serves `TemplateService`, health and reflection. Starts NOT_SERVING: health follows `set_serving`.

    Belongs to the event loop in which `start` was called. `interceptors` stand around every method, the first one
    outermost; `fresh` finds what this process' own cache holds.
    """

    def __init__(
        self,
        service: Templates,
        host: str,
        port: int,
        *,
        options: ServerOptions | None = None,
        tls: ServerTls | None = None,
        interceptors: Sequence[Interceptor] = (Failures(),),
        fresh: Fresh | None = None,
    ) -> None:
        """With `tls` nothing is served in plain text."""
        self._servicer = TemplateServicer(service, None if fresh is None else Hits(fresh))
        self._host = host
        self._port = port
        self._options = ServerOptions() if options is None else options
        self._interceptors = list(interceptors)
        if self._options.compression_min_bytes:
            self._interceptors.append(Compression(self._options.compression_min_bytes))
        self._tls = tls
        self._server: grpc.aio.Server | None = None
        self._health = HealthServicer([SERVICE])
        self._reflection: ReflectionServicer | None = None
        if self._options.reflection:
            described = Descriptions([SERVICE, HEALTH_SERVICE, *REFLECTION_SERVICES], [error_details_pb2.DESCRIPTOR])
            self._reflection = ReflectionServicer(described)
        self._gate = Gate()
        self._stopping: asyncio.Task[None] | None = None
        self._told_to_go = asyncio.Event()
        self._is_cut_off = False

    async def start(self) -> int:
        """Listens, and returns the port: the one asked for, or with 0 the one that was free.

        Raises `OSError`, naming the address, where it cannot be listened on.
        """
        server = grpc.aio.server(options=self._options.channel_arguments())
        chain = Chain([*self._interceptors, self._gate])
        add_TemplateServiceServicer_to_server(self._servicer, chain)  # type: ignore[no-untyped-call]
        add_HealthServicer_to_server(self._health, chain)
        if self._reflection is not None:
            self._reflection.add_to(chain)
        server.add_generic_rpc_handlers((chain,))
        port = await self._bind(server)
        await server.start()
        self._server = server
        return port

    def set_serving(self, serving: bool) -> None:
        """What health says from now on, of the whole server and of the template service."""
        self._health.set_serving(serving)

    async def drain(self, timeout_s: float) -> None:
        """Health turns NOT_SERVING, watches end, clients are told to go (GOAWAY), calls in flight finish.

        Those that are still running after `timeout_s` seconds are cancelled. Returns when none is left to answer. A
        second drain with less patience hastens the first. Has no effect on a server that was not started.

        Calls that come while it begins are held for a moment, see `Gate`. What a client sends after that and before it
        has seen the GOAWAY is cancelled by gRPC itself: `set_serving(False)` some time before keeps clients that watch
        health from sending any.
        """
        self._health.close()
        self._servicer.close()
        if self._reflection is not None:
            self._reflection.close()
        if self._server is None:
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(self._server))
        await asyncio.wait({self._stopping}, timeout=timeout_s)
        if not self._stopping.done() and not self._is_cut_off:
            self._is_cut_off = True
            self._gate.hurry()
            await self._told_to_go.wait()
            await self._server.stop(None)
        await asyncio.wait({self._stopping})
        self._stopping.result()

    async def _stop(self, server: grpc.aio.Server) -> None:
        await self._gate.shut()
        # Without end, and cut short above: gRPC crashes the process where the periods of two stops end together.
        stopped = asyncio.ensure_future(server.stop(ENDLESS_S))
        await asyncio.sleep(0)  # its first step sends the GOAWAY
        self._gate.open()
        self._told_to_go.set()
        await stopped

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
            if self._tls is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, self._tls.credentials()))
        except OSError as error:
            raise OSError(error.errno, f"gRPC can't listen on {address}: {error.strerror}") from error
        except RuntimeError as error:
            raise OSError(f"gRPC can't listen on {address}") from error
