"""Pieces of JSON, written out, where building it up for `json.dumps` would cost too much for each call."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring

quoted = encode_basestring
"""A string, as JSON."""


def timestamp(wall: float) -> str:
    """Seconds since the epoch as ISO 8601, to the microsecond; not quoted."""
    second, microseconds = divmod(round(wall * 1e6), 1_000_000)
    return f"{_second(second)}.{microseconds:06d}Z"


def timestamp_ms(wall: float) -> str:
    """The same to the millisecond."""
    second, microseconds = divmod(round(wall * 1e6), 1_000_000)
    return f"{_second(second)}.{microseconds // 1_000:03d}Z"


def boolean(value: bool) -> str:
    return "true" if value else "false"


@lru_cache(maxsize=16)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]
