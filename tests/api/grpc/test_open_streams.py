from __future__ import annotations

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from prometheus_client import CollectorRegistry

from app.api.grpc.call import Interceptor
from app.api.grpc.interceptors.failures import Failures
from app.api.grpc.interceptors.open_streams import OpenStreams
from app.api.grpc.server import GrpcServer
from app.telemetry.calls import CallMetrics
from tests.api.grpc.fake_cache import FakeCache, service_over
from tests.faults.polling import until


async def test_open_streams_are_counted_by_kind_until_they_end_however_they_end() -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry, bounds=[1.0])

    def open_streams() -> list[float | None]:
        kinds = ("server_streaming", "client_streaming", "bidi_streaming")
        return [registry.get_sample_value("grpc_open_streams", {"kind": kind}) for kind in kinds]

    interceptors: list[Interceptor] = [OpenStreams(metrics), Failures()]
    server = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0, interceptors=interceptors)
    port = await server.start()
    assert open_streams() == [0, 0, 0]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watches = [HealthStub(channel).Watch(HealthCheckRequest(), timeout=60) for _ in range(3)]
        reflection = ServerReflectionStub(channel).ServerReflectionInfo(timeout=60)
        await HealthStub(channel).Check(HealthCheckRequest(), timeout=10)
        await until(lambda: open_streams() == [3, 0, 1], "the streams are open")
        watches[0].cancel()
        await until(lambda: open_streams() == [2, 0, 1], "one was cancelled")
        await reflection.done_writing()
        await until(lambda: open_streams() == [2, 0, 0], "one ended")
    await until(lambda: open_streams() == [0, 0, 0], "the connection is gone")
    await server.drain(1)
