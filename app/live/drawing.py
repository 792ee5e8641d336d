"""A stampede's picture as another application tells it, taken for no more than it is."""

from __future__ import annotations

from typing import Any, Final, get_args

from app.live.lane import MAX_WAITS, End, On
from app.live.recorder import MAX_LANES

MAX_CHARS: Final = 64
MAX_NUMBER: Final = 1e15
_ENDS: Final = frozenset(get_args(End))
_ONS: Final = frozenset(get_args(On))


def parse(fields: Any, app: str) -> dict[str, Any] | None:
    """The picture, under the name that the application has here; `None` for anything that is no such picture."""
    try:
        return {
            "app": app,
            "mode": _text(fields["mode"]),
            "key": _text(fields["key"]),
            "at": _number(fields["at"]),
            "callers": int(_number(fields["callers"])),
            "loads": int(_number(fields["loads"])),
            "took_ms": _number(fields["took_ms"]),
            "lanes": [_lane(lane) for lane in _few(fields["lanes"], MAX_LANES)],
        }
    except (TypeError, KeyError, ValueError):
        return None


def _lane(fields: Any) -> dict[str, Any]:
    waits = [
        {"on": _one_of(_ONS, wait["on"]), "from_ms": _number(wait["from_ms"]), "to_ms": _number(wait["to_ms"])}
        for wait in _few(fields["waits"], MAX_WAITS + 1)
    ]
    return {
        "n": int(_number(fields["n"])),
        "came_ms": _number(fields["came_ms"]),
        "left_ms": _number(fields["left_ms"]),
        "waits": waits,
        "end": _one_of(_ENDS, fields["end"]),
    }


def _few(values: Any, most: int) -> list[Any]:
    if not isinstance(values, list) or len(values) > most:
        raise ValueError("no list, or too long")
    return values


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ValueError("no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_CHARS:
        raise ValueError("no text, or too long")
    return value


def _one_of(known: frozenset[str], value: Any) -> str:
    if value not in known:
        raise ValueError("not known")
    return str(value)
