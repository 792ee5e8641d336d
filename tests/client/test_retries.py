"""What is tried again, against the service's own server with all that stands around its methods."""

from __future__ import annotations

import pytest

from app.api.grpc.interceptors.stack import interceptors
from app.api.grpc.server import GrpcServer
from app.client.errors import UnavailableError
from app.client.retries import ATTEMPTS
from app.client.templates import TemplateClient
from app.domain.errors import StorageUnavailableError
from app.telemetry.metrics import Metrics
from tests.api.grpc.fake_cache import FakeCache, service_over


async def test_a_read_that_the_service_could_not_do_is_tried_again() -> None:
    """gRPC tries nothing again whose response headers have come: they must not go out before the outcome is known."""
    cache = FakeCache(error=StorageUnavailableError())
    metrics = Metrics(mode="full", version="0", ttl_s=30)
    server = GrpcServer(service_over(cache), "127.0.0.1", 0, interceptors=interceptors(metrics.calls))
    async with TemplateClient(f"127.0.0.1:{await server.start()}", timeout_s=30) as client:
        with pytest.raises(UnavailableError):
            await client.get(1)
        assert len(cache.asked) == ATTEMPTS
    await server.drain(1.0)
