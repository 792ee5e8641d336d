"""The reference of the gRPC API, made of what the .proto files say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
)

from tests.contract.descriptors import contract

_SERVICE, _MESSAGE, _ENUM = (
    6,
    4,
    5,
)  # the numbers of a file's fields in descriptor.proto, of which comments' paths are made
_METHOD, _VALUE, _FIELD, _NESTED, _NESTED_ENUM, _ONEOF = 2, 2, 2, 3, 4, 8

Path = tuple[int, ...]


def reference(files: FileDescriptorSet | None = None) -> str:
    """All services, messages and enums, with their comments."""
    return "\n\n".join(part for file in (files or contract()).file for part in _Reference(file).parts())


class _Reference:
    """One file's part."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments: Mapping[Path, str] = {
            tuple(location.path): location.leading_comments for location in file.source_code_info.location
        }
        self._prefix = f".{file.package}."
        self._summaries = {name: self._summary(path) for name, path in self._paths()}
        self._used: dict[str, list[str]] = {}
        for service in file.service:
            for method in service.method:
                for word, name in (("request", method.input_type), ("response", method.output_type)):
                    self._used.setdefault(name, []).append(f"The {word} of {_link(method.name)}.")

    def parts(self) -> Iterator[str]:
        package = self._file.package
        for number, service in enumerate(self._file.service):
            path: Path = (_SERVICE, number)
            yield f"## Service `{package}.{service.name}`"
            yield from self._paragraphs(path)
            for place, method in enumerate(service.method):
                yield from self._method(method, (*path, _METHOD, place))
        yield f"## Messages of `{package}`"
        for number, message in enumerate(self._file.message_type):
            yield from self._message(message, "", (_MESSAGE, number))
        if self._file.enum_type:
            yield f"## Enums of `{package}`"
        for number, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, "", (_ENUM, number))

    def _method(self, method: MethodDescriptorProto, path: Path) -> Iterator[str]:
        yield f"### {method.name}"
        taken = f"{'stream of ' if method.client_streaming else ''}{self._type_link(method.input_type)}"
        given = f"{'stream of ' if method.server_streaming else ''}{self._type_link(method.output_type)}"
        level = MethodOptions.IdempotencyLevel.Name(method.options.idempotency_level)
        yield f"{taken} → {given}{f' (`{level}`)' if method.options.idempotency_level else ''}"
        yield from self._paragraphs(path)

    def _message(self, message: DescriptorProto, scope: str, path: Path) -> Iterator[str]:
        if message.options.map_entry:
            return
        name = f"{scope}{message.name}"
        yield f"### {name}"
        yield from self._paragraphs(path)
        if used := self._used.get(f"{self._prefix}{name}"):
            yield " ".join(used)
        rows = [
            [
                str(field.number),
                f"`{field.name}`",
                self._type(field, message),
                self._meaning(field, message, path, place),
            ]
            for place, field in enumerate(message.field)
        ]
        if rows:
            yield _table(["No.", "Field", "Type", "Meaning"], rows)
        for place, nested in enumerate(message.nested_type):
            yield from self._message(nested, f"{name}.", (*path, _NESTED, place))
        for place, enum in enumerate(message.enum_type):
            yield from self._enum(enum, f"{name}.", (*path, _NESTED_ENUM, place))

    def _enum(self, enum: EnumDescriptorProto, scope: str, path: Path) -> Iterator[str]:
        yield f"### {scope}{enum.name}"
        yield from self._paragraphs(path)
        rows = [
            [str(value.number), f"`{value.name}`", self._line((*path, _VALUE, place))]
            for place, value in enumerate(enum.value)
        ]
        yield _table(["No.", "Value", "Meaning"], rows)

    def _meaning(self, field: FieldDescriptorProto, owner: DescriptorProto, path: Path, place: int) -> str:
        """The field's own comment, or else what its type is; and which others stand in its way."""
        words = [self._line((*path, _FIELD, place)) or self._summaries.get(field.type_name, "")]
        if field.HasField("oneof_index") and not field.proto3_optional:
            others = [
                f"`{its.name}`"
                for its in owner.field
                if its.HasField("oneof_index") and its.oneof_index == field.oneof_index and its.name != field.name
            ]
            words += [f"Not together with {' or '.join(others)}."] if others else []
        return " ".join(word for word in words if word)

    def _type(self, field: FieldDescriptorProto, owner: DescriptorProto) -> str:
        entries = {nested.name: nested for nested in owner.nested_type if nested.options.map_entry}
        entry = entries.get(field.type_name.rpartition(".")[2])
        if entry is not None:
            key, value = entry.field
            return f"map of {self._type(key, entry)} to {self._type(value, entry)}"
        plain = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        shown = self._type_link(field.type_name) if field.type_name else f"`{plain}`"
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {shown}"
        return f"optional {shown}" if field.proto3_optional else shown

    def _type_link(self, name: str) -> str:
        """To the type's place on the page, where it is one of this file."""
        if name in self._summaries:
            return _link(name.removeprefix(self._prefix))
        return f"`{name[1:]}`"

    def _paths(self) -> Iterator[tuple[str, Path]]:
        """Every message and enum, by its full name."""

        def under(scope: str, messages: Sequence[DescriptorProto], path: Path, kind: int) -> Iterator[tuple[str, Path]]:
            for number, message in enumerate(messages):
                here: Path = (*path, kind, number)
                yield f"{scope}{message.name}", here
                yield from under(f"{scope}{message.name}.", message.nested_type, here, _NESTED)
                for place, enum in enumerate(message.enum_type):
                    yield f"{scope}{message.name}.{enum.name}", (*here, _NESTED_ENUM, place)

        yield from under(self._prefix, self._file.message_type, (), _MESSAGE)
        for number, enum in enumerate(self._file.enum_type):
            yield f"{self._prefix}{enum.name}", (_ENUM, number)

    def _paragraphs(self, path: Path) -> Iterable[str]:
        return [" ".join(part.split()) for part in re.split(r"\n\s*\n", self._comments.get(path, "")) if part.strip()]

    def _line(self, path: Path) -> str:
        return " ".join(self._paragraphs(path))

    def _summary(self, path: Path) -> str:
        return next(iter(self._paragraphs(path)), "")


def _link(name: str) -> str:
    return f"[{name}](#{name.lower().replace('.', '')})"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
