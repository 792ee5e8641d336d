"""TLS files: what can't be used is said at the start, and what is replaced later is taken over, or left."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import grpc
import pytest

from app.api.grpc.server import GrpcServer
from app.api.grpc.tls import ServerTls, TlsError, TlsFiles
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.api.grpc.certificates import Authority
from tests.api.grpc.fake_cache import FakeCache, service_over


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def get_over(port: int, credentials: grpc.ChannelCredentials) -> int:
    """The id of the template that a new connection gets."""
    # Channels with the same arguments would share the connection, and so the handshake.
    async with grpc.aio.secure_channel(
        f"localhost:{port}", credentials, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=10)
        return int(answer.template.id)


def trusting(authority: Authority) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.file.read_bytes())


def shown_by(port: int, authority: Authority) -> bytes:
    """The certificate that the server shows, in DER."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    import socket

    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""
