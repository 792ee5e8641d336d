"""TLS files: what can't be used is said before anything is served; what is replaced later is taken over, or left."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
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


@asynccontextmanager
async def served(tls: ServerTls) -> AsyncIterator[int]:
    """A server's port."""
    server = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0, tls=tls)
    yield await server.start()
    await server.drain(1)


async def get_over(port: int, credentials: grpc.ChannelCredentials | None) -> int:
    """The id of the template that a new connection gets, `UNAVAILABLE` where it is not let in."""
    target = f"localhost:{port}"
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection, and so a handshake, of its own
    channel = (
        grpc.aio.insecure_channel(target, options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options)
    )
    async with channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=10)
        return int(answer.template.id)


async def is_refused(port: int, credentials: grpc.ChannelCredentials | None) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get_over(port, credentials)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def trusting(authority: Authority, shown: TlsFiles | None = None) -> grpc.ChannelCredentials:
    """A client's, which trusts the authority and shows a certificate where it has one."""
    root = authority.file.read_bytes()
    if shown is None:
        return grpc.ssl_channel_credentials(root)
    return grpc.ssl_channel_credentials(root, shown.key.read_bytes(), shown.cert.read_bytes())


async def shown_by(port: int, authority: Authority) -> bytes:
    """The certificate that a new connection is shown, in PEM."""

    def look() -> bytes:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"").encode()

    return await asyncio.to_thread(look)


async def test_clients_that_trust_the_certificate_are_served_and_others_are_not(
    authority: Authority, tmp_path: Path
) -> None:
    async with served(ServerTls(authority.issue("server"))) as port:
        assert await get_over(port, trusting(authority)) == 1
        assert await is_refused(port, trusting(Authority(tmp_path, "stranger")))
        assert await is_refused(port, None)
        assert await get_over(port, trusting(authority)) == 1


async def test_with_a_client_ca_only_those_are_served_who_show_a_certificate_of_its(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    files = replace(authority.issue("server"), client_ca=authority.file)
    async with served(ServerTls(files)) as port:
        assert await get_over(port, trusting(authority, authority.issue("client"))) == 1
        assert await is_refused(port, trusting(authority))
        assert await is_refused(port, trusting(authority, stranger.issue("strange-client")))
        assert await get_over(port, trusting(authority, authority.issue("client"))) == 1


async def test_a_replaced_certificate_is_shown_to_new_connections_and_old_ones_go_on(authority: Authority) -> None:
    files = authority.issue("server")
    told: list[bool] = []
    async with served(ServerTls(files, told.append)) as port:
        first = files.cert.read_bytes()
        async with grpc.aio.secure_channel(f"localhost:{port}", trusting(authority)) as channel:
            stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
            await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=10)
            assert await shown_by(port, authority) == first
            second = authority.issue("server").cert.read_bytes()
            assert await shown_by(port, authority) == second != first
            await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=1), timeout=10)
        assert told == [True]


async def test_files_that_are_replaced_one_after_the_other_are_taken_over_when_they_match(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.issue("server")
    told: list[bool] = []
    async with served(ServerTls(files, told.append)) as port:
        first = files.cert.read_bytes()
        coming = authority.issue("coming")
        files.cert.write_bytes(coming.cert.read_bytes())
        for _ in range(2):
            assert await shown_by(port, authority) == first
        assert told == [False]
        assert [record.levelno for record in caplog.records if record.name == "app.api.grpc.tls"] == [logging.ERROR]
        assert str(files.key) in caplog.text
        files.key.write_bytes(coming.key.read_bytes())
        assert await shown_by(port, authority) == coming.cert.read_bytes()
        assert told == [False, True]


async def test_files_that_are_gone_leave_the_old_certificate_in_use(authority: Authority) -> None:
    files = authority.issue("server")
    told: list[bool] = []
    async with served(ServerTls(files, told.append)) as port:
        first = files.cert.read_bytes()
        files.key.unlink()
        assert await shown_by(port, authority) == first
        assert told == [False]


def test_what_changes_while_it_is_read_is_not_used(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    files = authority.issue("server")
    read = Path.read_bytes

    def replacing(path: Path) -> bytes:
        found = read(path)
        if path == files.cert:
            authority.issue("server")
        return found

    monkeypatch.setattr(Path, "read_bytes", replacing)
    with pytest.raises(TlsError, match=r"server\.pem.* was being replaced while it was read"):
        files.read()


def _missing(path: Path) -> None:
    path.unlink()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_bytes(b"s3cr3t, but no PEM")


@pytest.mark.parametrize("spoil", [_missing, _directory, _empty, _text])
@pytest.mark.parametrize("which", ["cert", "key", "client_ca"])
def test_a_file_that_cannot_be_used_is_named(authority: Authority, which: str, spoil: Callable[[Path], None]) -> None:
    files = replace(authority.issue("server"), client_ca=authority.file)
    path = getattr(files, which)
    spoil(path)
    with pytest.raises(TlsError) as caught:
        ServerTls(files)
    assert str(caught.value).startswith(str(path))
    assert "s3cr3t" not in str(caught.value)


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    files, other = authority.issue("server"), authority.issue("other")
    with pytest.raises(TlsError, match=rf"{other.key} must hold the private key of the certificate in {files.cert}"):
        ServerTls(replace(files, key=other.key))


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    files = authority.issue("server")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pw"),
    )
    files.key.write_bytes(encrypted)
    with pytest.raises(TlsError, match="not encrypted"):
        ServerTls(files)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(authority: Authority) -> None:
    files = authority.issue("server")
    files.key.chmod(0)
    with pytest.raises(TlsError, match=r"server\.key can't be read: Permission denied"):
        ServerTls(files)
