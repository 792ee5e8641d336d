"""A call that was made again beside its original: what is not as it was, field by field."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.loom.call import Direction, Headers, Status, binary_value
from app.loom.decoding import Decoder, with_bytes
from app.loom.grpcurl import RESERVED
from app.loom.recording.record import Record
from app.loom.schema.errors import TranscodeError

MAX_DIFFERENCES: Final = 100
ABSENT: Final = "(absent)"
"""Stands in a difference for what one side does not have."""

_STATUS_TRAILERS: Final = frozenset({b"grpc-status", b"grpc-message"})


class Difference(NamedTuple):
    """Something that is not as it was."""

    where: str
    """`status`, `message`, `responses`, `response[0].items[2].name`, `trailers.x-name`."""
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """A replay beside its original."""

    same_status: bool
    same_body: bool
    """The same messages, by value where they can be decoded, else by their bytes."""
    differences: Sequence[Difference]
    """The first `MAX_DIFFERENCES`; those of trailers and of the status's message too, which may change each time."""

    @property
    def is_same(self) -> bool:
        return self.same_status and self.same_body


def compare(original: Record, again: Record, decoder: Decoder) -> Comparison:
    """What of the replay is not as it was, field by field."""
    found: list[Difference] = []
    with contextlib.suppress(TranscodeError):  # else by the JSON as it was recorded
        original = with_bytes(original, decoder.schema(original))
    before, after = original.status, again.status
    if before is not after:
        found.append(Difference("status", _name(before), _name(after)))
    body = list(_body(original, again, decoder))
    found += body
    if original.ended is not None and again.ended is not None:
        if original.ended.message != again.ended.message and Status.OK not in (before, after):
            found.append(Difference("message", original.ended.message, again.ended.message))
        found += _trailers(original.ended.trailers, again.ended.trailers)
    return Comparison(before is after, not body, found[:MAX_DIFFERENCES])


def _body(original: Record, again: Record, decoder: Decoder) -> Iterable[Difference]:
    before = {each.position: each for each in original.of(Direction.RESPONSE)}
    after = {each.position: each for each in again.of(Direction.RESPONSE)}
    if not original.left_out and len(before) != len(after):
        yield Difference("responses", len(before), len(after))
    for position in sorted(before.keys() & after.keys()):
        one, other = before[position], after[position]
        where = f"response[{position}]"
        if len(one.data) < one.size:  # cut then: what was kept of it is compared
            if not one.compressed and (other.size != one.size or not other.data.startswith(one.data)):
                yield Difference(where, f"{one.size} bytes", f"{other.size} bytes, not the same")
            continue
        shown = decoder.json(original, one), decoder.json(again, other)
        found = list(_values_differ(where, *shown))
        yield from found
    if original.left_out and before and not after:
        yield Difference("responses", len(before) + original.left_out, 0)


def _values_differ(where: str, before: Any, after: Any) -> Iterable[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _values_differ(f"{where}.{key}", before.get(key, ABSENT), after.get(key, ABSENT))
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            pair = [each[index] if index < len(each) else ABSENT for each in (before, after)]
            yield from _values_differ(f"{where}[{index}]", *pair)
    elif before != after or type(before) is not type(after):
        yield Difference(where, before, after)


def _trailers(before: Headers, after: Headers) -> Iterable[Difference]:
    was, now = _by_name(before), _by_name(after)
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            yield Difference(f"trailers.{name}", was.get(name, ABSENT), now.get(name, ABSENT))


def _by_name(headers: Headers) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not name.startswith(b":") and name not in _STATUS_TRAILERS and name not in RESERVED:
            text = _one_form(value) if name.endswith(b"-bin") else value.decode("latin-1")
            found.setdefault(name.decode("latin-1"), []).append(text)
    return {name: ", ".join(values) for name, values in found.items()}


def _one_form(sent: bytes) -> str:
    """Binary values come in base64, with padding or without, or as they are."""
    try:
        return base64.b64encode(binary_value(sent)).decode("ascii")
    except ValueError:
        return sent.decode("latin-1")


def _name(status: Status | None) -> str:
    return "UNSEEN" if status is None else status.name
