"""`grpc.health.v1.Health`, following readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse


class HealthServicer:
    """One answer for the whole server (the empty name) and for each of its services, NOT_SERVING at first.

    Written here because the servicer that grpcio-health-checking brings writes to watchers under the lock that a change
    of status takes, so that a watcher that never reads would hold up a drain, and because it never ends a watch, so
    that every watcher would make a drain last to its limit.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services) | {""}
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Tells whoever asks or watches. Has no effect after `close`."""
        if not self._closed and serving != self._serving:
            self._serving = serving
            self._announce()

    def close(self) -> None:
        """NOT_SERVING for good; watches end once they have said so."""
        self._serving, self._closed = False, True
        self._announce()

    async def Check(  # noqa: N802 (the name is the proto's)
        self,
        request: HealthCheckRequest,
        context: grpc.aio.ServicerContext[HealthCheckRequest, HealthCheckResponse],
    ) -> HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=self._status())

    async def List(  # noqa: N802 (the name is the proto's)
        self,
        request: HealthListRequest,  # noqa: ARG002 (gRPC passes it)
        context: grpc.aio.ServicerContext[HealthListRequest, HealthListResponse],  # noqa: ARG002
    ) -> HealthListResponse:
        status = HealthCheckResponse(status=self._status())
        return HealthListResponse(statuses=dict.fromkeys(self._services, status))

    async def Watch(  # noqa: N802 (the name is the proto's)
        self,
        request: HealthCheckRequest,
        context: grpc.aio.ServicerContext[HealthCheckRequest, HealthCheckResponse],
    ) -> None:
        """The status now and after each change. A slow watcher misses what lies between, never the newest."""
        known = request.service in self._services
        told = None
        while True:
            changed, closed = self._changed, self._closed
            status = self._status() if known else HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                await context.write(HealthCheckResponse(status=status))
                told = status
            if closed:
                return
            await changed.wait()

    def _status(self) -> HealthCheckResponse.ServingStatus:
        return HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
