"""Loom wired together: what passes is recorded, explained by the backend's own schema, and survives the process."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from grpc_reflection.v1alpha import reflection

from app.loom.bootstrap import Config, HostPort, Loom, running
from app.loom.call import Status
from app.loom.capture import CaptureConfig
from app.loom.proxy import tls
from app.loom.recording.redaction import PLACEHOLDER
from app.loom.schema.schema import Schema
from tests.loom.account import WAIT_S, eventually
from tests.loom.backend import Backend
from tests.loom.conftest import serving

ANYWHERE = HostPort("127.0.0.1", 0)


@asynccontextmanager
async def loom(
    port: int,
    capture: CaptureConfig | None = None,
    *,
    backend_tls: ssl.SSLContext | None = None,
    rules: Path | None = None,
) -> AsyncIterator[Loom]:
    config = Config(
        ANYWHERE,
        HostPort("127.0.0.1", port),
        ANYWHERE,
        backend_tls=backend_tls,
        rules=rules,
        stop_s=1,
        capture=capture or CaptureConfig(),
    )
    async with running(config) as made:
        yield made


def interop_file() -> FileDescriptorProto:
    """What describes the methods of `tests.loom.backend`, as far as it is asked here."""
    file = FileDescriptorProto(name="interop.proto", package="test", syntax="proto3")
    text = DescriptorProto(name="Text")
    text.field.add(
        name="text", number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    file.message_type.append(text)
    service = file.service.add(name="Interop")
    service.method.add(name="Unary", input_type=".test.Text", output_type=".test.Text")
    service.method.add(
        name="Bidi", input_type=".test.Text", output_type=".test.Text", client_streaming=True, server_streaming=True
    )
    return file


async def unary(loom: Loom, request: bytes, **options: object) -> bytes:
    async with grpc.aio.insecure_channel(str(loom.listen)) as channel:
        answer: bytes = await channel.unary_unary("/test.Interop/Unary")(request, timeout=WAIT_S, **options)
        return answer


async def test_a_call_is_recorded_as_it_was_and_its_secrets_are_not(tmp_path: Path) -> None:
    async with serving(Backend()) as (_, port), loom(port, CaptureConfig(redact=("x-key",))) as made:
        metadata = (("authorization", "Bearer s3cret"), ("x-key", "s3cret"), ("x-id", "7"))
        assert await unary(made, b"\n\x02hi", metadata=metadata) == b"\n\x02hi"
        (record,) = made.capture.ring.newest_first()
        assert record.started.method == "/test.Interop/Unary"
        assert [kept.data for kept in record.messages] == [b"\n\x02hi", b"\n\x02hi"]
        assert record.status is Status.OK
        assert (b"x-id", b"7") in record.headers
        assert b"s3cret" not in b"".join(value for _, value in record.headers)


async def test_a_session_outlives_the_process_and_its_schema_with_it(tmp_path: Path) -> None:
    schema = Schema([interop_file()])
    path = tmp_path / "sessions" / "one.jsonl"
    async with serving(Backend()) as (_, port), loom(port, CaptureConfig(session=path, schema=schema)) as made:
        await made.capture.schemas.schema()
        await unary(made, b"\n\x02hi")
        (first,) = made.capture.ring.newest_first()
        assert first.schema == schema.hash
    path.write_bytes(path.read_bytes() + b'{"torn')
    secret = CaptureConfig(session=path, redact=["user-agent"])
    async with serving(Backend()) as (_, port), loom(port, secret) as made:
        (again,) = made.capture.ring.newest_first()
        assert again.id == first.id
        assert dict(again.headers) == dict(first.headers) | {
            b"user-agent": PLACEHOLDER
        }  # no secret when it was written
        assert again.schema is not None
        kept = made.capture.schemas.by_hash(again.schema)
        assert kept is not None
        assert kept.method("/test.Interop/Unary") is not None


@pytest.mark.parametrize("skip_verify", [False, True])
async def test_reflection_goes_the_way_of_the_calls_with_tls_and_a_client_certificate(
    tmp_path: Path, skip_verify: bool
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, authority_of in (("server", authority), ("client", authority)):
        issued = authority_of.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        (tmp_path / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    server = grpc.aio.server()
    reflection.enable_server_reflection(("grpc.reflection.v1alpha.ServerReflection",), server)
    credentials = grpc.ssl_server_credentials(
        [((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())],
        root_certificates=(tmp_path / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    context = tls.for_backend(
        authority=tmp_path / ("stranger.pem" if skip_verify else "ca.pem"),
        certificate=tmp_path / "client.pem",
        key=tmp_path / "client.key",
        skip_verify=skip_verify,
    )
    try:
        async with loom(port, backend_tls=context) as made:
            schema = await made.capture.schemas.schema()
            assert made.capture.schemas.problem == ""
            assert schema is not None
            assert schema.services == ["grpc.reflection.v1alpha.ServerReflection"]
    finally:
        await server.stop(0)


async def test_a_backend_that_was_away_is_asked_for_its_schema_anew() -> None:
    backend = Backend()
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        _, port = await first.enter_async_context(serving(backend))
        made = await stack.enter_async_context(loom(port, CaptureConfig(schema=Schema([interop_file()]))))
        schemas = made.capture.schemas
        assert await schemas.schema() is not None
        fetched_at = schemas._fetched_at
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(str(made.listen)))
        ask = channel.unary_unary("/test.Interop/Unary")
        assert await ask(b"one", timeout=WAIT_S) == b"one"
        await first.aclose()
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(b"two", timeout=WAIT_S)
        assert schemas._fetched_at == fetched_at
        await stack.enter_async_context(serving(backend, port=port))
        assert await ask(b"three", timeout=WAIT_S, wait_for_ready=True) == b"three"

        async def is_asked_anew() -> bool:
            return schemas._fetched_at > fetched_at

        await eventually(is_asked_anew)


async def test_why_there_is_no_schema_of_a_backend_that_is_away_is_said_in_plain_words() -> None:
    async with serving(Backend()) as (_, port):
        pass  # a port that was free a moment ago
    async with loom(port) as made:
        assert await made.capture.schemas.schema() is None
        assert made.capture.schemas.problem == "the backend can't be reached"


async def test_a_backend_that_says_nothing_keeps_neither_a_call_nor_the_end_waiting() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with silent, asyncio.timeout(WAIT_S), loom(silent.sockets[0].getsockname()[1]) as made:
        assert made.capture.schemas.current("/a.S/M") is None
