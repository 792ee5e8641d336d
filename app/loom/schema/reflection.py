"""Server reflection, v1 and v1alpha (https://grpc.io/docs/guides/reflection/): the backend says what it speaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from app.loom.schema.errors import SchemaUnavailableError
from app.loom.schema.schema import Schema

TIMEOUT_S: Final = 5.0
"""For all of it."""
MAX_FILES: Final = 5_000
MAX_BYTES: Final = 64 << 20
"""Of all files together: a backend that sends more has no schema, rather than all of the memory."""
METHODS: Final = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
"""In the order tried. Their messages are the same on the wire."""

ATTEMPTS: Final = 3
"""With each: where a call ends just as it is written to, grpc.aio says INTERNAL, whatever the server said."""

_NO_WAY: Final = "failed to connect to all addresses"
"""So gRPC's C core begins what it says of a channel that has found nobody."""

Metadata = Sequence[tuple[str, str | bytes]]
Channels = Callable[[], AbstractAsyncContextManager[grpc.aio.Channel]]


class ReflectionClient:
    """Asks one backend for all its services' files, the files that these import included."""

    def __init__(self, channel: Channels, *, metadata: Metadata = (), timeout_s: float = TIMEOUT_S) -> None:
        """`channel` opens one to the backend, for one fetch; `metadata` is sent along, such as credentials."""
        self._channel = channel
        self._metadata = tuple(metadata)
        self._timeout_s = timeout_s

    async def fetch(self) -> Schema:
        """Raises `SchemaUnavailableError` where the backend does not tell, or not in time."""
        problem = ""
        try:
            async with asyncio.timeout(self._timeout_s), self._channel() as channel:
                missing = set()
                for method in METHODS * ATTEMPTS:
                    if method in missing:
                        continue
                    try:
                        return await self._ask(channel, method)
                    except grpc.aio.AioRpcError as error:
                        problem = _problem(error)
                        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                            missing.add(method)
                        elif error.code() is not grpc.StatusCode.INTERNAL:
                            break
        except TimeoutError:
            problem = f"reflection did not answer within {self._timeout_s:g} s"
        except DecodeError:
            problem = "reflection sent what is no answer, or a file that is no FileDescriptorProto"
        raise SchemaUnavailableError(problem)

    async def _ask(self, channel: grpc.aio.Channel, method: str) -> Schema:
        stream = channel.stream_stream(
            method, request_serializer=ServerReflectionRequest.SerializeToString
        )  # answers are parsed here: gRPC logs a stack trace for one that is none, and goes on with `None`
        call = stream(metadata=self._metadata)
        try:
            conversation = _Conversation(call)
            files = await _all_files(conversation)
            await call.done_writing()
        finally:
            call.cancel()
        return Schema(files)


def _problem(error: grpc.aio.AioRpcError) -> str:
    details = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith(_NO_WAY):
        return "the backend can't be reached"  # the rest names a socket of ours, which says nothing to anybody
    return f"reflection ended in {error.code().name}: {details}"


class _Conversation:
    """Questions and answers in turn, on one stream."""

    def __init__(self, call: grpc.aio.StreamStreamCall[ServerReflectionRequest, bytes]) -> None:
        self._call = call
        self._answers: AsyncIterator[bytes] = call.__aiter__()

    async def ask(self, question: ServerReflectionRequest) -> ServerReflectionResponse:
        with contextlib.suppress(asyncio.InvalidStateError):  # the call has ended; how, reading tells
            await self._call.write(question)
        try:
            return ServerReflectionResponse.FromString(await anext(self._answers))
        except StopAsyncIteration:
            raise SchemaUnavailableError("reflection ended before it had answered") from None


async def _all_files(conversation: _Conversation) -> list[FileDescriptorProto]:
    listed = await conversation.ask(ServerReflectionRequest(list_services=""))
    if listed.WhichOneof("message_response") != "list_services_response":
        raise SchemaUnavailableError(f"reflection lists no services: {listed.error_response.error_message}")
    files: dict[str, FileDescriptorProto] = {}
    size = 0
    questions = [
        ServerReflectionRequest(file_containing_symbol=service.name)
        for service in listed.list_services_response.service
    ]
    asked: set[str] = set()
    while questions:
        answer = await conversation.ask(questions.pop())
        for body in answer.file_descriptor_response.file_descriptor_proto:  # none where it answers with an error
            file = FileDescriptorProto.FromString(body)
            if file.name in files:
                continue
            files[file.name] = file
            size += len(body)
            if len(files) > MAX_FILES or size > MAX_BYTES:
                raise SchemaUnavailableError(f"reflection sends over {MAX_FILES} files or {MAX_BYTES >> 20} MiB")
        # Only when nothing else is left to ask: servers mostly send what is imported along.
        if not questions:
            wanted = {name for file in files.values() for name in file.dependency} - files.keys() - asked
            asked |= wanted
            questions = [ServerReflectionRequest(file_by_filename=name) for name in sorted(wanted)]
    if not files:
        raise SchemaUnavailableError("reflection names services and describes none")
    return list(files.values())
