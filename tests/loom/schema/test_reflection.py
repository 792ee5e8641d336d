"""Reflection against real gRPC servers, well-behaved and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from app.loom.schema.errors import SchemaUnavailableError
from app.loom.schema.reflection import METHODS, ReflectionClient
from app.loom.schema.schema import Schema
from app.proto.template.v1 import template_pb2

Behaviour = Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]]


class Servicer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers reflection on one of its two paths, with its messages or with bytes as they are."""

    def __init__(self, method: str, behaviour: Behaviour) -> None:
        self._method = method
        self._behaviour = behaviour
        self.asked: list[str] = []
        self.metadata: list[dict[str, str]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        self.asked.append(details.method)
        self.metadata.append(dict(details.invocation_metadata))
        if details.method != self._method:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._behaviour,
            request_deserializer=ServerReflectionRequest.FromString,
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
        )


@asynccontextmanager
async def serving(handler: grpc.GenericRpcHandler) -> AsyncIterator[Callable[..., ReflectionClient]]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield lambda **options: ReflectionClient(lambda: grpc.aio.insecure_channel(f"127.0.0.1:{port}"), **options)
    finally:
        await server.stop(0)


def answers_for(schema: Schema, leaves_out: frozenset[str] = frozenset()) -> Behaviour:
    """One file an answer, its imports only when asked for by name; services in `leaves_out` are not described."""
    files = {file.name: file for file in FileDescriptorSet.FromString(schema.serialize()).file}

    async def answer(questions: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for question in questions:
            response = ServerReflectionResponse()
            kind = question.WhichOneof("message_request")
            if kind == "list_services":
                for name in [*schema.services, *leaves_out]:
                    response.list_services_response.service.add(name=name)
            elif kind == "file_by_filename" and question.file_by_filename in files:
                found = files[question.file_by_filename]
                response.file_descriptor_response.file_descriptor_proto.append(found.SerializeToString())
            elif kind == "file_containing_symbol" and question.file_containing_symbol in schema.services:
                found = files["shop/order.proto"]
                response.file_descriptor_response.file_descriptor_proto.append(found.SerializeToString())
            else:
                response.error_response.error_message = "not found"
            yield response

    return answer


@pytest.mark.parametrize("method", METHODS)
async def test_both_versions_are_spoken_and_imports_fetched(shop: Schema, method: str) -> None:
    servicer = Servicer(method, answers_for(shop))
    async with serving(servicer) as client:
        fetched = await client(metadata=[("authorization", "Bearer x")]).fetch()
    assert fetched.hash == shop.hash
    assert servicer.asked == list(METHODS[: METHODS.index(method) + 1])
    assert all(metadata["authorization"] == "Bearer x" for metadata in servicer.metadata)


async def test_the_reflection_that_grpcio_ships_is_understood() -> None:
    server = grpc.aio.server()
    service = template_pb2.DESCRIPTOR.services_by_name["TemplateService"].full_name
    reflection.enable_server_reflection([service], server, descriptor_pool.Default())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        schema = await ReflectionClient(lambda: grpc.aio.insecure_channel(f"127.0.0.1:{port}")).fetch()
    finally:
        await server.stop(0)
    assert schema.method("/template.v1.TemplateService/WatchTemplates") is not None
    assert schema.problems == []


async def test_a_service_that_is_listed_and_not_described_is_left_out(shop: Schema) -> None:
    async with serving(Servicer(METHODS[0], answers_for(shop, frozenset({"shop.Gone"})))) as client:
        assert (await client().fetch()).services == ["shop.Shop"]


async def says_nothing(questions: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
    async for _ in questions:
        await asyncio.Event().wait()
    yield b""


async def ends_at_once(_questions: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
    nothing: list[bytes] = []
    for each in nothing:
        yield each


async def refuses(_questions: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    yield b""


async def lists_nothing(questions: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
    async for _ in questions:
        yield ServerReflectionResponse()


async def answers_nonsense(questions: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
    async for _ in questions:
        yield bytes(1_000)


async def sends_no_descriptor(questions: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
    async for question in questions:
        response = ServerReflectionResponse()
        if question.WhichOneof("message_request") == "list_services":
            response.list_services_response.service.add(name="a.B")
        else:
            response.file_descriptor_response.file_descriptor_proto.append(b"\xff\xff")
        yield response


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (says_nothing, "did not answer within 0.3 s"),
        (ends_at_once, "ended before it had answered"),
        (refuses, "UNAUTHENTICATED: who are you"),
        (lists_nothing, "lists no services"),
        (answers_nonsense, "sent what is no answer"),
        (sends_no_descriptor, "no FileDescriptorProto"),
    ],
)
async def test_a_backend_that_does_not_tell_is_a_failure_with_its_reason(behaviour: Behaviour, says: str) -> None:
    async with serving(Servicer(METHODS[0], behaviour)) as client:
        with pytest.raises(SchemaUnavailableError, match=says):
            await client(timeout_s=0.3 if behaviour is says_nothing else 10.0).fetch()


async def test_a_backend_without_reflection_or_without_anybody_there_is_a_failure() -> None:
    async with serving(Servicer("/none", ends_at_once)) as client:
        reflector = client()
        with pytest.raises(SchemaUnavailableError, match="UNIMPLEMENTED"):
            await reflector.fetch()
    with pytest.raises(SchemaUnavailableError):
        await ReflectionClient(lambda: grpc.aio.insecure_channel("127.0.0.1:1"), timeout_s=5.0).fetch()
