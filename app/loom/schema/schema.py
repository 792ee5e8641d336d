"""A set of descriptors, made usable: which types a method has, and which type a name means."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from app.loom.call import Direction
from app.loom.schema.errors import SchemaError

_KNOWN: Final = descriptor_pool.Default()
_IN_IT: Final = (
    any_pb2, api_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2,
    error_details_pb2,
)  # fmt: skip
"""Known because they are imported here: what backends may leave out, and what errors carry whatever the backend is."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method's shape."""

    path: str
    """`/package.Service/Method`."""
    input: Descriptor
    output: Descriptor
    client_streams: bool
    server_streams: bool

    def message(self, direction: Direction) -> Descriptor:
        """The type of the messages that go that way."""
        return self.input if direction is Direction.REQUEST else self.output


class Schema:
    """Descriptors that never change. Equal sets have equal hashes, in whatever order their files came."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        """Files whose dependencies are missing, and files that contradict each other, are left out: see `problems`."""
        self._pool = descriptor_pool.DescriptorPool()
        self._files: list[FileDescriptorProto] = []
        self._methods: dict[str, Method] = {}
        self.problems: list[str] = []
        """Why files were left out, one line each."""
        waiting = {file.name: file for file in map(_without_source, files)}
        self._add_well_known(waiting)
        while ready := [f for f in waiting.values() if all(d not in waiting or d == f.name for d in f.dependency)]:
            for file in sorted(ready, key=lambda file: file.name):
                del waiting[file.name]
                self._add(file)
        self.problems += [f"{name}: its imports go in a circle" for name in waiting]
        self._files.sort(key=lambda file: file.name)
        digest = hashlib.sha256()
        for file in self._files:
            body = file.SerializeToString(deterministic=True)
            digest.update(len(body).to_bytes(8, "big") + body)
        self.hash = digest.hexdigest()

    @classmethod
    def parse(cls, data: bytes) -> Schema:
        """From a serialised `FileDescriptorSet`. Raises `SchemaError` where the bytes are none."""
        try:
            return cls(FileDescriptorSet.FromString(data).file)
        except Exception as error:  # what protobuf raises differs by implementation and version
            raise SchemaError("not a FileDescriptorSet") from error

    def serialize(self) -> bytes:
        """A `FileDescriptorSet`, from which `parse` makes an equal schema."""
        return FileDescriptorSet(file=self._files).SerializeToString(deterministic=True)

    @property
    def services(self) -> list[str]:
        """Full names, sorted."""
        return sorted(
            ".".join(filter(None, (file.package, service.name))) for file in self._files for service in file.service
        )

    def method(self, path: str) -> Method | None:
        """By its path, `/package.Service/Method`; `None` where there is no such method."""
        known = self._methods.get(path)
        if known is not None:
            return known
        service, _, name = path.removeprefix("/").partition("/")
        try:
            found: MethodDescriptor = self._pool.FindServiceByName(service).methods_by_name[name]
        except KeyError:
            return None
        method = Method(path, found.input_type, found.output_type, found.client_streaming, found.server_streaming)
        self._methods[path] = method
        return method

    def methods(self) -> list[Method]:
        """All of them, by path."""
        return [
            method
            for service in self.services
            for name in sorted(self._pool.FindServiceByName(service).methods_by_name)
            if (method := self.method(f"/{service}/{name}")) is not None
        ]

    def type_named(self, name: str) -> Descriptor | None:
        """A message type by its full name: this schema's, or one that every backend may use, as google.rpc's."""
        for pool in (self._pool, _KNOWN):
            try:
                return pool.FindMessageTypeByName(name)
            except KeyError:
                continue
        return None

    @property
    def pool(self) -> descriptor_pool.DescriptorPool:
        return self._pool

    def _add(self, file: FileDescriptorProto) -> None:
        try:
            self._pool.AddSerializedFile(file.SerializeToString())
        except Exception as error:  # noqa: BLE001 - what protobuf raises differs by implementation and version
            self.problems.append(f"{file.name}: {str(error).partition(chr(10))[0]}")
        else:
            self._files.append(file)

    @staticmethod
    def _add_well_known(waiting: dict[str, FileDescriptorProto]) -> None:
        """Backends may leave out google/protobuf/*.proto, which everybody has."""
        missing = [name for file in waiting.values() for name in file.dependency if name not in waiting]
        while missing:
            name = missing.pop()
            if name in waiting or not name.startswith("google/"):
                continue
            try:
                known = _KNOWN.FindFileByName(name)
            except KeyError:
                continue
            waiting[name] = file = FileDescriptorProto()
            known.CopyToProto(file)
            missing += file.dependency


def _without_source(file: FileDescriptorProto) -> FileDescriptorProto:
    """Comments are most of a file, and mean nothing for the bytes."""
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("source_code_info")
    return bare


def new_message(descriptor: Descriptor) -> Message:
    """An empty message of this type."""
    message: Message = message_factory.GetMessageClass(descriptor)()
    return message
