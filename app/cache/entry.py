"""What a cache tier holds for a key, and how it is written down."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

FORMAT = "1"
"""Part of every key: processes that speak different formats never read each other's entries."""

_MAGIC = b"tc1"
_ABSENT = b"-"


class CorruptEntryError(Exception):
    """The bytes are no entry of this format: cut short, altered, or written by something else."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value with what is needed to judge its age.

    `payload` is the value's bytes as they go on the wire, or `None` where it is known that there is no value.
    `created_at` is wall-clock time in seconds since the epoch, the moment of the load; `ttl_s` the life from then on;
    `load_cost_s` how long the load took. `version` rises with every change of the value.
    """

    payload: bytes | None
    version: int
    created_at: float
    ttl_s: float
    load_cost_s: float

    def age_s(self, now: float) -> float:
        """Seconds since the load; never negative, whatever the clocks of two machines say."""
        return max(0.0, now - self.created_at)

    def is_fresh(self, now: float) -> bool:
        """Whether the entry may be served at wall-clock time `now`."""
        return now < self.created_at + self.ttl_s


def encode(entry: Entry) -> bytes:
    """One line of ASCII, `tc1 VERSION CREATED TTL COST LENGTH CRC32`, then the payload.

    The times are seconds, with as many digits as a date of this century has: who asks for what is newer than an entry
    must not be given that same entry, rounded up. The version comes first so that a server-side script can read it
    without the rest.
    """
    body = _ABSENT if entry.payload is None else entry.payload
    length = -1 if entry.payload is None else len(body)
    fields = b"%d %.9f %.9f %.9f %d" % (entry.version, entry.created_at, entry.ttl_s, entry.load_cost_s, length)
    return b"%s %s %08x\n%s" % (_MAGIC, fields, zlib.crc32(body, zlib.crc32(fields)), body)


def decode(data: bytes) -> Entry:
    """The entry that `encode` wrote. Raises `CorruptEntryError` for anything else."""
    header, newline, body = data.partition(b"\n")
    parts = header.split(b" ")
    if not newline or len(parts) != 7 or parts[0] != _MAGIC:
        raise CorruptEntryError("not an entry of this format")
    fields = b" ".join(parts[1:6])
    if b"%08x" % zlib.crc32(body, zlib.crc32(fields)) != parts[6]:
        raise CorruptEntryError("the checksum does not match")
    try:
        version, length = int(parts[1]), int(parts[5])
        created_at, ttl_s, load_cost_s = (float(part) for part in parts[2:5])
    except ValueError:
        raise CorruptEntryError("a field is not a number") from None
    if not parts[1].isdigit() or not all(math.isfinite(number) for number in (created_at, ttl_s, load_cost_s)):
        raise CorruptEntryError("a field is out of range")
    if length == len(body):
        return Entry(body, version, created_at, ttl_s, load_cost_s)
    if length == -1 and body == _ABSENT:
        return Entry(None, version, created_at, ttl_s, load_cost_s)
    raise CorruptEntryError("the length does not match")
