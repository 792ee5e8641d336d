"""Rules applied to messages and metadata. Pure: no I/O, no time; chance is passed in."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from google.protobuf import json_format, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message

from app.loom.call import Direction, Headers
from app.loom.rules.model import Abort, HeaderEdits, Path, Rule

_ANY: Final = "google.protobuf.Any"


class MutationError(Exception):
    """A message that a rule was for could not be changed as it says, and was left as it was; the text says why."""


class Ruleset:
    """The rules in force. Never changes."""

    def __init__(self, rules: Sequence[Rule] = (), chance: Callable[[], float] = random.random) -> None:
        self.rules = tuple(rules)
        self._chance = chance

    def __bool__(self) -> bool:
        return bool(self.rules)

    def for_call(self, method: str) -> CallRules:
        """Those that are for one call: by its method, and by chance where a rule is for a share of calls."""
        return CallRules(
            tuple(
                rule for rule in self.rules if rule.is_for(method) and (rule.share >= 1 or self._chance() < rule.share)
            )
        )


class CallRules:
    """The rules for one call, in the order of the file."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules

    @property
    def delay_s(self) -> float:
        """All delays together."""
        return sum(rule.delay_s for rule in self.rules)

    @property
    def abort(self) -> Abort | None:
        """The first one."""
        return next((rule.abort for rule in self.rules if rule.abort is not None), None)

    def edits(self, direction: Direction) -> bool:
        """Whether messages that way are to be changed."""
        return any(rule.edits_messages for rule in self._of(direction))

    def headers(self, direction: Direction, headers: Headers) -> Headers:
        """Metadata as it is to be sent; what the protocol itself needs is never touched."""
        for rule in self._of(direction):
            headers = _edited(headers, rule.headers)
        return headers

    def message(self, direction: Direction, data: bytes, empty: Message | None) -> bytes:
        """A serialised message, uncompressed, changed by all rules for that way; `empty` is one of its type.

        Raises `MutationError`: a message is changed by all of them or by none.
        """
        if empty is None:
            raise MutationError("the type of the message is not known")
        try:
            empty.ParseFromString(data)
        except DecodeError as error:
            raise MutationError(f"the bytes are no {empty.DESCRIPTOR.full_name}") from error
        try:
            for rule in self._of(direction):
                for path in rule.delete:
                    _delete(empty, path, rule)
                for path, value in rule.set:
                    _set(empty, path, value, rule)
            return empty.SerializeToString()
        except (EncodeError, ValueError) as error:  # proto2 has fields that must be there
            raise MutationError(str(error)) from error

    def _of(self, direction: Direction) -> list[Rule]:
        return [rule for rule in self.rules if rule.direction in (None, direction)]


def _edited(headers: Headers, edits: HeaderEdits) -> Headers:
    gone = {name.encode() for name in [*edits.delete, *edits.set]}
    kept = [pair for pair in headers if pair[0] not in gone]
    new = [*edits.set.items(), *edits.add]
    return (*kept, *((name.encode(), value.encode()) for name, value in new))


def _field(message: Message, name: str, path: Path, rule: Rule) -> FieldDescriptor:
    for field in message.DESCRIPTOR.fields:
        if name in (field.name, field.json_name):
            return cast("FieldDescriptor", field)  # the stubs know two of its kind
    raise MutationError(f"rule {rule.number}: {'.'.join(path)}: {message.DESCRIPTOR.full_name} has no {name}")


def _place(values: Sequence[Any], text: str, path: Path, rule: Rule) -> int:
    if text.isascii() and text.isdigit() and int(text) < len(values):
        return int(text)
    raise MutationError(f"rule {rule.number}: {'.'.join(path)}: the list has {len(values)} entries, and no {text}")


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


@contextmanager
def _held(message: Message, path: Path, rule: Rule) -> Iterator[Message]:
    """What a message holds of its type: an `Any` the message in it, which is put back, any other one itself."""
    if message.DESCRIPTOR.full_name != _ANY:
        yield message
        return
    packed = cast("AnyMessage", message)
    name = packed.type_url.rpartition("/")[2]
    try:
        found: Any = message.DESCRIPTOR.file.pool.FindMessageTypeByName(name)
        inner = message_factory.GetMessageClass(found).FromString(packed.value)
    except (KeyError, DecodeError) as error:
        why = "is not known" if isinstance(error, KeyError) else "is not what its bytes are"
        reason = f"the type that is in it, {name or 'none'}, {why}"
        raise MutationError(f"rule {rule.number}: {'.'.join(path)}: {reason}") from error
    yield inner
    packed.value = inner.SerializeToString()


def _set(message: Message, path: Path, value: Any, rule: Rule, rest: Path | None = None) -> None:
    with _held(message, path, rule) as held:
        _set_field(held, path, value, rule, path if rest is None else rest)


def _set_field(message: Message, path: Path, value: Any, rule: Rule, rest: Path) -> None:
    name, *more = rest
    field = _field(message, name, path, rule)
    if not more:
        message.ClearField(field.name)
        _parse({field.json_name: value}, message, path, rule)
    elif _is_map(field):
        _set_entry(message, field, more, path, value, rule)
    elif field.is_repeated:
        values = getattr(message, field.name)
        place = _place(values, more[0], path, rule)
        if len(more) > 1 and field.message_type is not None:
            _set(values[place], path, value, rule, tuple(more[1:]))
            return
        if len(more) > 1:
            raise MutationError(f"rule {rule.number}: {'.'.join(path)}: {name} is a list of plain values")
        one = type(message)()
        _parse({field.json_name: [value]}, one, path, rule)
        [new] = getattr(one, field.name)
        if field.message_type is None:
            values[place] = new
        else:
            values[place].CopyFrom(new)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _set(inner, path, value, rule, tuple(more))
    else:
        raise MutationError(f"rule {rule.number}: {'.'.join(path)}: {name} is a plain value and has no {more[0]}")


def _set_entry(
    message: Message, field: FieldDescriptor, more: Sequence[str], path: Path, value: Any, rule: Rule
) -> None:
    key, *deeper = more
    entry = type(message)()
    if deeper:
        if not _has_messages(field):
            raise MutationError(f"rule {rule.number}: {'.'.join(path)}: {field.name} is a map of plain values")
        _parse({field.json_name: {key: {}}}, entry, path, rule)
        [typed] = getattr(entry, field.name)
        _set(getattr(message, field.name)[typed], path, value, rule, tuple(deeper))
        return
    _parse({field.json_name: {key: value}}, entry, path, rule)
    message.MergeFrom(entry)


def _has_messages(map_field: FieldDescriptor) -> bool:
    entry = map_field.message_type
    return entry is not None and entry.fields_by_name["value"].message_type is not None


def _delete(message: Message, path: Path, rule: Rule, rest: Path | None = None) -> None:
    with _held(message, path, rule) as held:
        _delete_field(held, path, rule, path if rest is None else rest)


def _delete_field(message: Message, path: Path, rule: Rule, rest: Path) -> None:
    name, *more = rest
    field = _field(message, name, path, rule)
    if not more:
        message.ClearField(field.name)
        return
    if _is_map(field):
        entries = getattr(message, field.name)
        found = [key for key in entries if more[0] == (str(key).lower() if isinstance(key, bool) else str(key))]
        if found and len(more) == 1:
            del entries[found[0]]
        elif found and _has_messages(field):
            _delete(entries[found[0]], path, rule, tuple(more[1:]))
    elif field.is_repeated:
        values = getattr(message, field.name)
        if not (more[0].isascii() and more[0].isdigit()) or int(more[0]) >= len(values):
            return  # what is not there need not be deleted
        if len(more) == 1:
            del values[int(more[0])]
        elif field.message_type is not None:
            _delete(values[int(more[0])], path, rule, tuple(more[1:]))
    elif field.message_type is not None:
        if message.HasField(field.name):
            _delete(getattr(message, field.name), path, rule, tuple(more))
    else:
        raise MutationError(f"rule {rule.number}: {'.'.join(path)}: {name} is a plain value and has no {more[0]}")


def _parse(fields: dict[str, Any], message: Message, path: Path, rule: Rule) -> None:
    try:
        json_format.ParseDict(fields, message, descriptor_pool=cast("DescriptorPool", message.DESCRIPTOR.file.pool))
    except (json_format.ParseError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise MutationError(f"rule {rule.number}: {'.'.join(path)}: {reason}") from error
