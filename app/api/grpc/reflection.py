"""`grpc.reflection.v1.ServerReflection` and `v1alpha`: what services there are, and the files that describe them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from app.api.grpc.chain import Chain

V1ALPHA = "grpc.reflection.v1alpha"
V1 = "grpc.reflection.v1"
REFLECTION_SERVICES = (f"{V1}.ServerReflection", f"{V1ALPHA}.ServerReflection")


class Descriptions:
    """The .proto files that describe some services, found by their names, by every symbol and by every extension.

    Written here because protobuf's own pool doesn't know methods, fields and enum values by their full names, which
    clients ask for, and knows all that the process has loaded, which is not for clients.
    """

    def __init__(self, services: Iterable[str], others: Iterable[FileDescriptor] = ()) -> None:
        """Of the services by these full names, and in `others` what they use without importing it, as in an `Any`."""
        self.services = tuple(sorted(services))
        self._files: dict[str, FileDescriptorProto] = {}
        self._symbols: dict[str, str] = {}
        self._messages: set[str] = set()
        self._extensions: dict[tuple[str, int], str] = {}
        pool = descriptor_pool.Default()
        for name in self.services:
            if name.startswith(f"{V1}."):
                self._add(_reflection_v1())
            else:
                self._add_all(pool.FindFileContainingSymbol(name))
        for file in others:
            self._add_all(file)

    def file(self, name: str) -> list[bytes]:
        """The file, and after it those that it imports, directly or not. Raises `KeyError`."""
        names = [self._files[name].name]
        for each in names:  # grows meanwhile
            names += [needed for needed in self._files[each].dependency if needed not in names]
        return [self._files[each].SerializeToString() for each in names]

    def file_of_symbol(self, symbol: str) -> list[bytes]:
        """By the full name of a service, method, message, field, oneof, enum, enum value or extension."""
        return self.file(self._symbols[symbol])

    def file_of_extension(self, message: str, number: int) -> list[bytes]:
        return self.file(self._extensions[message, number])

    def extensions(self, message: str) -> list[int]:
        """The numbers of a message's extensions, in order. Raises `KeyError` where there is no such message."""
        if message not in self._messages:
            raise KeyError(message)
        return sorted(number for extended, number in self._extensions if extended == message)

    def _add_all(self, file: FileDescriptor) -> None:
        if file.name not in self._files:
            proto = FileDescriptorProto()
            file.CopyToProto(proto)
            self._add(proto)
            for needed in file.dependencies:
                self._add_all(needed)

    def _add(self, file: FileDescriptorProto) -> None:
        self._files[file.name] = file
        prefix = f"{file.package}." if file.package else ""
        for symbol in _symbols(file, prefix):
            self._symbols[symbol] = file.name
        for name, message in _messages(file.message_type, prefix):
            self._messages.add(name)
            self._add_extensions(message.extension, file.name)
        self._add_extensions(file.extension, file.name)

    def _add_extensions(self, extensions: Iterable[FieldDescriptorProto], file: str) -> None:
        for extension in extensions:
            self._extensions[extension.extendee.removeprefix("."), extension.number] = file


class ReflectionServicer:
    """Answers by `Descriptions`. Versions 1 and 1alpha differ in their name only, so that one servicer serves both."""

    def __init__(self, descriptions: Descriptions) -> None:
        self._descriptions = descriptions
        self._closed = asyncio.Event()

    def add_to(self, chain: Chain) -> None:
        """As the generated functions add a servicer to a server."""
        method = grpc.stream_stream_rpc_method_handler(
            self.ServerReflectionInfo, ServerReflectionRequest.FromString, ServerReflectionResponse.SerializeToString
        )
        for service in REFLECTION_SERVICES:
            chain.add_registered_method_handlers(service, {"ServerReflectionInfo": method})

    def close(self) -> None:
        """Streams end, those too whose clients have more to ask: clients keep them open for as long as they live."""
        self._closed.set()

    async def ServerReflectionInfo(  # noqa: N802 (the name is the proto's)
        self,
        requests: AsyncIterator[ServerReflectionRequest],
        context: grpc.aio.ServicerContext[ServerReflectionRequest, ServerReflectionResponse],  # noqa: ARG002
    ) -> AsyncIterator[ServerReflectionResponse]:
        """One answer to each request, in order; what can't be found is an answer too, and the stream goes on."""
        closed = asyncio.ensure_future(self._closed.wait())
        reading = asyncio.ensure_future(_next(requests))
        try:
            while True:
                await asyncio.wait({reading, closed}, return_when=asyncio.FIRST_COMPLETED)
                if closed.done() or (request := reading.result()) is None:
                    return
                yield self._answer(request)
                reading = asyncio.ensure_future(_next(requests))
        finally:
            closed.cancel()
            reading.cancel()
            await asyncio.gather(closed, reading, return_exceptions=True)

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        answer = ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        known = self._descriptions
        try:
            match kind:
                case "list_services":
                    names = [ServiceResponse(name=name) for name in known.services]
                    answer.list_services_response.CopyFrom(ListServiceResponse(service=names))
                case "file_by_filename":
                    _describe(answer, known.file(request.file_by_filename))
                case "file_containing_symbol":
                    _describe(answer, known.file_of_symbol(request.file_containing_symbol))
                case "file_containing_extension":
                    wanted = request.file_containing_extension
                    _describe(answer, known.file_of_extension(wanted.containing_type, wanted.extension_number))
                case "all_extension_numbers_of_type":
                    name = request.all_extension_numbers_of_type
                    numbers = ExtensionNumberResponse(base_type_name=name, extension_number=known.extensions(name))
                    answer.all_extension_numbers_response.CopyFrom(numbers)
                case _:
                    _refuse(
                        answer,
                        grpc.StatusCode.INVALID_ARGUMENT,
                        "message_request is not set, or to a kind that is not known here",
                    )
        except KeyError as error:
            _refuse(answer, grpc.StatusCode.NOT_FOUND, f"{kind}: {error} is not known here")
        return answer


async def _next(requests: AsyncIterator[ServerReflectionRequest]) -> ServerReflectionRequest | None:
    return await anext(requests, None)


def _describe(answer: ServerReflectionResponse, files: list[bytes]) -> None:
    answer.file_descriptor_response.CopyFrom(FileDescriptorResponse(file_descriptor_proto=files))


def _refuse(answer: ServerReflectionResponse, status: grpc.StatusCode, message: str) -> None:
    answer.error_response.CopyFrom(ErrorResponse(error_code=status.value[0], error_message=message))


def _reflection_v1() -> FileDescriptorProto:
    """That of v1alpha under its later name, which is all in which the two differ. grpcio-reflection has no v1."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.package = V1
    file.name = f"{V1.replace('.', '/')}/reflection.proto"
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{V1ALPHA}.", f".{V1}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(f".{V1ALPHA}.", f".{V1}.")
        method.output_type = method.output_type.replace(f".{V1ALPHA}.", f".{V1}.")
    return file


def _messages(messages: Iterable[DescriptorProto], prefix: str) -> Iterator[tuple[str, DescriptorProto]]:
    """Each with its full name, those inside others too."""
    for message in messages:
        name = prefix + message.name
        yield name, message
        yield from _messages(message.nested_type, f"{name}.")


def _symbols(file: FileDescriptorProto, prefix: str) -> Iterator[str]:
    """The full names of all that a file defines."""
    for service in file.service:
        yield prefix + service.name
        yield from (f"{prefix}{service.name}.{method.name}" for method in service.method)
    yield from _enum_symbols(file.enum_type, prefix)
    yield from (prefix + extension.name for extension in file.extension)
    for name, message in _messages(file.message_type, prefix):
        yield name
        for part in (message.field, message.oneof_decl, message.extension):
            yield from (f"{name}.{each.name}" for each in part)
        yield from _enum_symbols(message.enum_type, f"{name}.")


def _enum_symbols(enums: Iterable[EnumDescriptorProto], prefix: str) -> Iterator[str]:
    """A value stands beside its enum, not in it: protobuf's scoping is C++'s."""
    for enum in enums:
        yield prefix + enum.name
        yield from (prefix + value.name for value in enum.value)
