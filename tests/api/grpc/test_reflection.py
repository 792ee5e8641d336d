"""Reflection as clients use it: both versions, every kind of request, every kind of symbol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import code_pb2, error_details_pb2
from grpc_reflection.v1alpha.reflection_pb2 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from app.api.grpc.options import ServerOptions
from app.api.grpc.reflection import REFLECTION_SERVICES, Descriptions
from app.api.grpc.server import SERVICE, GrpcServer
from tests.api.grpc.conftest import Running
from tests.api.grpc.fake_cache import FakeCache, service_over

TEMPLATE_FILE = "app/proto/template/v1/template.proto"
SYMBOLS = (
    "template.v1.TemplateService",
    "template.v1.TemplateService.GetTemplateDetails",
    "template.v1.GetTemplateDetailsRequest",
    "template.v1.GetTemplateDetailsRequest.id",
    "template.v1.SyncTemplatesRequest.action",
    "template.v1.SyncTemplatesRequest.Get",
    "template.v1.SyncTemplatesRequest.Get.id",
    "template.v1.Source",
    "template.v1.SOURCE_L1",
)


@pytest.fixture(params=REFLECTION_SERVICES)
def version(request: pytest.FixtureRequest) -> str:
    """The full name of the reflection service."""
    return str(request.param)


async def ask(
    channel: grpc.aio.Channel, version: str, *requests: ServerReflectionRequest
) -> list[ServerReflectionResponse]:
    """The answers to these requests, on one stream."""
    method = channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        ServerReflectionRequest.SerializeToString,
        ServerReflectionResponse.FromString,
    )
    return [answer async for answer in method(iter(requests), timeout=10)]


def files_of(answer: ServerReflectionResponse) -> list[FileDescriptorProto]:
    assert answer.WhichOneof("message_response") == "file_descriptor_response", answer
    return [FileDescriptorProto.FromString(file) for file in answer.file_descriptor_response.file_descriptor_proto]


async def test_it_lists_every_service_that_is_served(running: Running, version: str) -> None:
    [answer] = await ask(running.channel, version, ServerReflectionRequest(list_services="*"))
    assert [service.name for service in answer.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "template.v1.TemplateService",
    ]


async def test_every_kind_of_symbol_is_found_methods_too(running: Running, version: str) -> None:
    answers = await ask(
        running.channel, version, *(ServerReflectionRequest(file_containing_symbol=symbol) for symbol in SYMBOLS)
    )
    assert [files_of(answer)[0].name for answer in answers] == [TEMPLATE_FILE] * len(SYMBOLS)


async def test_a_file_comes_first_and_with_all_that_it_imports(running: Running, version: str) -> None:
    by_name, by_symbol = await ask(
        running.channel,
        version,
        ServerReflectionRequest(file_by_filename=TEMPLATE_FILE),
        ServerReflectionRequest(file_containing_symbol=SERVICE),
    )
    files = files_of(by_name)
    assert files == files_of(by_symbol)
    assert [file.name for file in files] == [
        TEMPLATE_FILE,
        "google/protobuf/duration.proto",
        "google/protobuf/field_mask.proto",
        "google/protobuf/timestamp.proto",
        "google/rpc/status.proto",
        "google/protobuf/any.proto",
    ]


@pytest.mark.parametrize("service", ["template.v1.TemplateService", "grpc.health.v1.Health", *REFLECTION_SERVICES])
async def test_what_a_client_is_told_of_a_service_is_enough_to_build_its_messages(
    running: Running, version: str, service: str
) -> None:
    [answer] = await ask(running.channel, version, ServerReflectionRequest(file_containing_symbol=service))
    pool = DescriptorPool()
    for file in reversed(files_of(answer)):
        pool.Add(file)
    for method in pool.FindServiceByName(service).methods:
        assert method.input_type.fields or method.input_type.name == "HealthListRequest"
        assert method.output_type.full_name.startswith(service.rpartition(".")[0])


async def test_the_details_of_errors_can_be_decoded_although_no_service_imports_them(
    running: Running, version: str
) -> None:
    [answer] = await ask(
        running.channel, version, ServerReflectionRequest(file_containing_symbol="google.rpc.BadRequest")
    )
    assert files_of(answer)[0].name == "google/rpc/error_details.proto"


async def test_what_is_not_there_is_an_answer_and_the_stream_goes_on(running: Running, version: str) -> None:
    asked = [
        ServerReflectionRequest(host="h", file_by_filename="nix.proto"),
        ServerReflectionRequest(host="h", file_containing_symbol="template.v1.Nix"),
        ServerReflectionRequest(host="h", file_containing_symbol=""),
        ServerReflectionRequest(
            host="h",
            file_containing_extension=ExtensionRequest(containing_type="template.v1.Template", extension_number=9),
        ),
        ServerReflectionRequest(host="h", all_extension_numbers_of_type="template.v1.Nix"),
        ServerReflectionRequest(host="h"),
        ServerReflectionRequest(host="h", all_extension_numbers_of_type="template.v1.Template"),
    ]
    answers = await ask(running.channel, version, *asked)
    assert [answer.original_request for answer in answers] == asked
    assert {answer.valid_host for answer in answers} == {"h"}
    assert [answer.error_response.error_code for answer in answers] == [5, 5, 5, 5, 5, 3, 0]
    assert answers[1].error_response.error_message == "file_containing_symbol: 'template.v1.Nix' is not known here"
    extensions = answers[-1].all_extension_numbers_response
    assert (extensions.base_type_name, list(extensions.extension_number)) == ("template.v1.Template", [])


async def test_what_the_process_has_loaded_but_does_not_serve_is_not_told(running: Running, version: str) -> None:
    [answer] = await ask(running.channel, version, ServerReflectionRequest(file_by_filename=code_pb2.DESCRIPTOR.name))
    assert answer.error_response.error_code == 5


async def test_a_drain_does_not_wait_for_a_client_that_keeps_its_stream_open(running: Running, version: str) -> None:
    asked = asyncio.Event()

    async def requests() -> AsyncIterator[ServerReflectionRequest]:
        yield ServerReflectionRequest(list_services="*")
        asked.set()
        await asyncio.Event().wait()

    method = running.channel.stream_stream(
        f"/{version}/ServerReflectionInfo", ServerReflectionRequest.SerializeToString
    )
    call = method(requests())
    await call.read()
    await asked.wait()
    await asyncio.wait_for(running.server.drain(60), 10)
    assert await call.code() is grpc.StatusCode.OK


async def test_it_can_be_switched_off(version: str) -> None:
    server = GrpcServer(service_over(FakeCache()), "127.0.0.1", 0, options=ServerOptions(reflection=False))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, version, ServerReflectionRequest(list_services="*"))
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "this server has no such method",
    )
    await server.drain(1)


def extended() -> Descriptions:
    """A proto2 message with an extension, inside another message, as no service here has."""
    file = FileDescriptorProto(name="extended.proto", package="x", syntax="proto2")
    file.message_type.add(name="Base").extension_range.add(start=10, end=20)
    outer = file.message_type.add(name="Outer")
    for owner, name, number in ((outer.extension, "inside", 12), (file.extension, "beside", 11)):
        owner.add(name=name, number=number, extendee=".x.Base", type="TYPE_INT32", label="LABEL_OPTIONAL")
    pool = DescriptorPool()
    return Descriptions([], [pool.AddSerializedFile(file.SerializeToString())])


def test_extensions_are_found_by_number_and_by_name() -> None:
    descriptions = extended()
    assert descriptions.extensions("x.Base") == [11, 12]
    assert descriptions.extensions("x.Outer") == []
    for found in (
        descriptions.file_of_extension("x.Base", 12),
        descriptions.file_of_symbol("x.beside"),
        descriptions.file_of_symbol("x.Outer.inside"),
    ):
        assert [FileDescriptorProto.FromString(file).name for file in found] == ["extended.proto"]
    with pytest.raises(KeyError):
        descriptions.file_of_extension("x.Base", 13)


def test_a_file_that_is_imported_by_several_comes_once() -> None:
    files = Descriptions([SERVICE], [error_details_pb2.DESCRIPTOR]).file("google/rpc/error_details.proto")
    assert [FileDescriptorProto.FromString(file).name for file in files] == [
        "google/rpc/error_details.proto",
        "google/protobuf/duration.proto",
    ]
