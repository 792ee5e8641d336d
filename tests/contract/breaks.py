"""What of a contract's change would break those who were built against it: on the wire, in JSON, or in their source.

The rules are those of buf's categories FILE and WIRE_JSON (https://buf.build/docs/breaking/rules), as far as proto3 can
break them, under buf's names; FIELD_SAME_NUMBER says what is a deletion to buf. What a caller never sees, such as
comments, the order of declarations, or what is deprecated, may change, and anything may be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FieldOptions,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)


class Break(NamedTuple):
    """One break: the rule, what breaks it, and how."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.rule})"


def breaks(released: FileDescriptorSet, now: FileDescriptorSet) -> list[Break]:
    """Every break in `now` of what `released` promised."""
    files = {file.name: file for file in now.file}
    found: list[Break] = []
    for file in released.file:
        if file.name in files:
            found += _file(file, files[file.name])
        else:
            found.append(Break("FILE_NO_DELETE", file.name, "is gone"))
    return found


class _Named(Protocol):
    name: str


N = TypeVar("N", bound=_Named)

_FILE_OPTIONS = (
    "go_package", "java_package", "java_outer_classname", "java_multiple_files", "csharp_namespace",
    "objc_class_prefix", "php_namespace", "php_class_prefix", "ruby_package", "swift_prefix",
    "optimize_for", "cc_enable_arenas", "cc_generic_services", "java_generic_services", "py_generic_services",
)  # fmt: skip
"""They say what is generated, in other languages too."""


def _file(old: FileDescriptorProto, new: FileDescriptorProto) -> Iterator[Break]:
    if old.package != new.package:
        yield Break("FILE_SAME_PACKAGE", old.name, f"was package {old.package}, is {new.package or 'none'}")
        return  # nothing in it has its name any more
    if _syntax(old) != _syntax(new):
        yield Break("FILE_SAME_SYNTAX", old.name, f"was {_syntax(old)}, is {_syntax(new)}")
    for option in _FILE_OPTIONS:
        before, after = getattr(old.options, option), getattr(new.options, option)
        if before != after:
            yield Break(f"FILE_SAME_{option.upper()}", old.name, f"option {option} was {before!r}, is {after!r}")
    for service, its in _pairs(old.service, new.service):
        name = f"{old.package}.{service.name}"
        yield from [Break("SERVICE_NO_DELETE", name, "is gone")] if its is None else _service(name, service, its)
    yield from _types(old.package, old.message_type, new.message_type, old.enum_type, new.enum_type)


def _types(
    scope: str,
    old_messages: Sequence[DescriptorProto],
    new_messages: Sequence[DescriptorProto],
    old_enums: Sequence[EnumDescriptorProto],
    new_enums: Sequence[EnumDescriptorProto],
) -> Iterator[Break]:
    for message, its in _pairs(old_messages, new_messages):
        name = f"{scope}.{message.name}"
        if its is None:
            # The entries of a map are messages that nobody wrote: the field says it.
            yield from [] if message.options.map_entry else [Break("MESSAGE_NO_DELETE", name, "is gone")]
        else:
            yield from _message(name, message, its)
    for enum, same in _pairs(old_enums, new_enums):
        name = f"{scope}.{enum.name}"
        yield from [Break("ENUM_NO_DELETE", name, "is gone")] if same is None else _enum(name, enum, same)


def _service(name: str, old: ServiceDescriptorProto, new: ServiceDescriptorProto) -> Iterator[Break]:
    for method, its in _pairs(old.method, new.method):
        where = f"{name}/{method.name}"
        yield from [Break("RPC_NO_DELETE", where, "is gone")] if its is None else _method(where, method, its)


def _method(where: str, old: MethodDescriptorProto, new: MethodDescriptorProto) -> Iterator[Break]:
    if old.input_type != new.input_type:
        yield Break("RPC_SAME_REQUEST_TYPE", where, f"took {old.input_type[1:]}, takes {new.input_type[1:]}")
    if old.output_type != new.output_type:
        yield Break("RPC_SAME_RESPONSE_TYPE", where, f"returned {old.output_type[1:]}, returns {new.output_type[1:]}")
    for side, before, after in (
        ("client", old.client_streaming, new.client_streaming),
        ("server", old.server_streaming, new.server_streaming),
    ):
        if before != after:
            what = f"the {side} streams now" if after else f"the {side} streams no more"
            yield Break(f"RPC_SAME_{side.upper()}_STREAMING", where, what)
    if old.options.idempotency_level != new.options.idempotency_level:
        was, now = (MethodOptions.IdempotencyLevel.Name(its.options.idempotency_level) for its in (old, new))
        yield Break("RPC_SAME_IDEMPOTENCY_LEVEL", where, f"was {was}, is {now}")


def _message(name: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[Break]:
    by_number = {field.number: field for field in new.field}
    numbers = {field.name: field.number for field in new.field}
    for field in old.field:
        where = f"{name}.{field.name}"
        if field.number in by_number:
            yield from _field(where, field, old, by_number[field.number], new)
        elif field.name in numbers:
            what = f"had number {field.number}, has {numbers[field.name]}"
            yield Break("FIELD_SAME_NUMBER", where, what)
        else:
            yield Break("FIELD_NO_DELETE", where, f"number {field.number} is gone")
    kept = {oneof.name for oneof in new.oneof_decl}
    for number, oneof in enumerate(old.oneof_decl):
        if oneof.name not in kept and not _is_synthetic(old, number):
            yield Break("ONEOF_NO_DELETE", f"{name}.{oneof.name}", "is gone")
    # An end of a message's range is past it (descriptor.proto).
    before, after = (_numbers((its.start, its.end - 1) for its in it.reserved_range) for it in (old, new))
    yield from _reserved("RESERVED_MESSAGE_NO_DELETE", name, before, after, old.reserved_name, new.reserved_name)
    yield from _types(name, old.nested_type, new.nested_type, old.enum_type, new.enum_type)


def _field(
    where: str, old: FieldDescriptorProto, owner: DescriptorProto, new: FieldDescriptorProto, now: DescriptorProto
) -> Iterator[Break]:
    if old.name != new.name:
        yield Break("FIELD_SAME_NAME", where, f"number {old.number} is named {new.name} now")
    elif old.json_name != new.json_name:
        yield Break("FIELD_SAME_JSON_NAME", where, f"was {old.json_name} in JSON, is {new.json_name}")
    if _type(old) != _type(new):
        yield Break("FIELD_SAME_TYPE", where, f"was {_type(old)}, is {_type(new)}")
    if _cardinality(old, owner) != _cardinality(new, now):
        what = f"was {_cardinality(old, owner)}, is {_cardinality(new, now)}"
        yield Break("FIELD_SAME_CARDINALITY", where, what)
    before, after = _oneof(old, owner), _oneof(new, now)
    if before != after:
        yield Break("FIELD_SAME_ONEOF", where, f"was in {before or 'no oneof'}, is in {after or 'none'}")
    if old.options.jstype != new.options.jstype:
        was, is_now = (FieldOptions.JSType.Name(its.options.jstype) for its in (old, new))
        yield Break("FIELD_SAME_JSTYPE", where, f"was {was} in JavaScript, is {is_now}")


def _enum(name: str, old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[Break]:
    before, after = _by_number(old.value), _by_number(new.value)
    for number, names in before.items():
        where = f"{name}.{min(names)}"
        if number not in after:
            yield Break("ENUM_VALUE_NO_DELETE", where, f"number {number} is gone")
        elif not names <= after[number]:
            yield Break("ENUM_VALUE_SAME_NAME", where, f"number {number} is named {', '.join(after[number])} now")
    # An end of an enum's range is in it.
    reserved, still = (_numbers((its.start, its.end) for its in it.reserved_range) for it in (old, new))
    yield from _reserved("RESERVED_ENUM_NO_DELETE", name, reserved, still, old.reserved_name, new.reserved_name)


def _reserved(
    rule: str,
    where: str,
    before: list[tuple[int, int]],
    after: list[tuple[int, int]],
    names_before: Iterable[str],
    names_after: Iterable[str],
) -> Iterator[Break]:
    for first, last in before:
        if not any(start <= first and last <= end for start, end in after):
            yield Break(rule, where, f"{first if first == last else f'{first} to {last}'} is reserved no more")
    for name in sorted(set(names_before) - set(names_after)):
        yield Break(rule, where, f"the name {name} is reserved no more")


def _pairs(old: Iterable[N], new: Iterable[N]) -> list[tuple[N, N | None]]:
    by_name = {its.name: its for its in new}
    return [(its, by_name.get(its.name)) for its in old]


def _by_number(values: Iterable[EnumValueDescriptorProto]) -> Mapping[int, set[str]]:
    names: dict[int, set[str]] = {}
    for value in values:
        names.setdefault(value.number, set()).add(value.name)
    return names


def _numbers(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last of each stretch, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _type(field: FieldDescriptorProto) -> str:
    plain = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{plain} {field.type_name[1:]}" if field.type_name else plain


def _cardinality(field: FieldDescriptorProto, owner: DescriptorProto) -> str:
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        entries = {nested.name for nested in owner.nested_type if nested.options.map_entry}
        return "map" if field.type_name.rpartition(".")[2] in entries else "repeated"
    if field.label == FieldDescriptorProto.LABEL_REQUIRED:
        return "required"
    return "optional" if field.proto3_optional else "singular"


def _oneof(field: FieldDescriptorProto, owner: DescriptorProto) -> str | None:
    if field.proto3_optional or not field.HasField("oneof_index"):
        return None
    return str(owner.oneof_decl[field.oneof_index].name)


def _is_synthetic(owner: DescriptorProto, oneof: int) -> bool:
    """Whether the oneof stands for one `optional` field, and nobody wrote it."""
    return all(its.proto3_optional for its in owner.field if its.HasField("oneof_index") and its.oneof_index == oneof)


def _syntax(file: FileDescriptorProto) -> str:
    return file.syntax or "proto2"
