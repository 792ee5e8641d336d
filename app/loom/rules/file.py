"""The rules file: JSON, taken whole or refused whole with the line and the reason.

    {"rules": [
        {"method": "/shop.Shop/Get*", "direction": "request", "set": {"user.name": "Ada", "items.0.units": 3},
         "delete": ["user.token"], "headers": {"set": {"x-tenant": "7"}, "add": {"x-tag": "a"}, "delete": ["x-old"]}},
        {"method": "*", "delay": 250, "share": 0.1},
        {"method": "shop.Shop/Buy", "abort": {"status": "UNAVAILABLE", "message": "sold out"}}
    ]}

A list of rules alone will do as well. `delay` is in milliseconds.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

from app.loom.call import Direction, Status
from app.loom.rules.model import Abort, HeaderEdits, Path, Rule

MAX_FILE_BYTES: Final = 1 << 20
MAX_RULES: Final = 1_000
MAX_DELAY_S: Final = 3600.0

_KEYS: Final = ("method", "direction", "set", "delete", "headers", "delay", "abort", "share")
_HEADER_EDITS: Final = ("set", "add", "delete")
_ABORT: Final = ("status", "message")
_HEADER_NAME: Final = re.compile(r"[0-9a-z_.-]{1,256}")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,8192}")
_SPACE: Final = re.compile(r"[\s,]*")


class RulesError(Exception):
    """Rules that cannot be used. The text is one line: the file, the line in it, and the reason."""


class _ProblemError(Exception):
    """Of one rule; `key` is where in it, as far as is known."""

    def __init__(self, reason: str, key: str = "") -> None:
        super().__init__(reason)
        self.key = key


def load(path: FilePath) -> tuple[Rule, ...]:
    """The rules of a file. Raises `RulesError`."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RulesError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        text = path.read_text("utf-8")
    except OSError as error:
        raise RulesError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RulesError(f"{path}: not UTF-8") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> tuple[Rule, ...]:
    """The rules of a text; `name` is for what `RulesError` says."""
    try:
        whole = json.loads(text, object_pairs_hook=_object_of)
        json.dumps(whole, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise RulesError(f"{name}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except UnicodeEncodeError as error:
        raise RulesError(f"{name}: half of a surrogate pair is no character") from error
    except _ProblemError as problem:
        raise RulesError(f"{name}: {problem}") from None
    except ValueError as error:
        raise RulesError(f"{name}: a number of too many digits") from error
    except RecursionError as error:
        raise RulesError(f"{name}: nested too deeply") from error
    start = 0
    if isinstance(whole, dict):
        _refuse(name, 1, _unknown(whole, ("rules",), "the file"))
        if not isinstance(whole.get("rules"), list):
            raise RulesError(f'{name}:1: rules are expected as a list under "rules"')
        found = re.match(r'\s*\{\s*"rules"\s*:\s*\[', text)
        if found is None:
            raise RulesError(f'{name}:1: "rules" is written without escapes')
        start, whole = found.end() - 1, whole["rules"]
    elif isinstance(whole, list):
        start = text.index("[")
    else:
        raise RulesError(f"{name}:1: a list of rules is expected")
    if len(whole) > MAX_RULES:
        raise RulesError(f"{name}: {len(whole)} rules; {MAX_RULES} are the most")
    return tuple(_rules(text, start + 1, len(whole), name))


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python's reader would keep the last of equal keys, and say nothing."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _ProblemError(f"{json.dumps(twice)} is given twice in one object")
    return made


def _rules(text: str, at: int, count: int, name: str) -> Iterable[Rule]:
    decoder = json.JSONDecoder()
    for number in range(1, count + 1):
        match = _SPACE.match(text, at)
        begins = at if match is None else match.end()
        fields, at = decoder.raw_decode(text, begins)
        try:
            yield _rule(number, fields)
        except _ProblemError as problem:
            place = text.find(f'"{problem.key}"', begins, at) if problem.key else begins
            line = text.count("\n", 0, begins if place < 0 else place) + 1
            raise RulesError(f"{name}:{line}: rule {number}: {problem}") from None


def _rule(number: int, fields: Any) -> Rule:
    if not isinstance(fields, dict):
        raise _ProblemError("a rule is a JSON object")
    if unknown := _unknown(fields, _KEYS, "a rule"):
        raise unknown
    method = _text(fields, "method").removeprefix("/")
    if not method:
        raise _ProblemError("method: which one? A path such as shop.Shop/Get, or a glob such as shop.Shop/*", "method")
    abort = _abort(fields["abort"]) if "abort" in fields else None
    rule = Rule(
        number,
        method,
        _direction(fields),
        tuple((_path(path, "set"), value) for path, value in _object(fields, "set").items()),
        tuple(_path(path, "delete") for path in _texts(fields, "delete")),
        _headers(_object(fields, "headers")),
        _number(fields, "delay", 0.0, MAX_DELAY_S * 1e3) / 1e3,
        abort,
        _number(fields, "share", 1.0, 1.0),
    )
    if not (rule.edits_messages or rule.headers != HeaderEdits() or rule.delay_s or abort):
        # It changes nothing, which is what a person may want: calls then go through the lane that could.
        return rule
    if abort is not None and (rule.edits_messages or rule.headers != HeaderEdits()):
        raise _ProblemError("abort: a call that is aborted has nothing to edit", "abort")
    return rule


def _direction(fields: dict[str, Any]) -> Direction | None:
    given = fields.get("direction", "both")
    known: dict[Any, Direction | None] = {"request": Direction.REQUEST, "response": Direction.RESPONSE, "both": None}
    if not isinstance(given, str) or given not in known:
        raise _ProblemError(f"direction: request, response or both, not {_shown(given)}", "direction")
    return known[given]


def _headers(given: dict[str, Any]) -> HeaderEdits:
    if unknown := _unknown(given, _HEADER_EDITS, "headers"):
        raise unknown
    added = _object(given, "add")
    pairs = [
        (name, value) for name, values in added.items() for value in (values if isinstance(values, list) else [values])
    ]
    edits = HeaderEdits(_object(given, "set"), tuple(pairs), frozenset(_texts(given, "delete")))
    for name in [*edits.set, *added, *edits.delete]:
        if not _HEADER_NAME.fullmatch(name):
            raise _ProblemError(
                f"headers: {_shown(name)} is no name: lower-case letters, digits, '-', '_' and '.'", name
            )
        if name.startswith("grpc-") or name in ("te", "content-type", "connection"):
            raise _ProblemError(f"headers: {name} belongs to the protocol", name)
    for name, value in [*edits.set.items(), *pairs]:
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise _ProblemError(f"headers: {name} must be printable ASCII, not {_shown(value)}", name)
    return edits


def _abort(given: Any) -> Abort:
    if not isinstance(given, dict):
        raise _ProblemError('abort: an object such as {"status": "UNAVAILABLE", "message": "…"}', "abort")
    if unknown := _unknown(given, _ABORT, "abort"):
        raise unknown
    status = given.get("status")
    names = [known.name for known in Status if known is not Status.OK]
    if status not in names:
        raise _ProblemError(f"abort: status: {_shown(status)} is none of {', '.join(names)}", "status")
    message = given.get("message", "")
    if not isinstance(message, str):
        raise _ProblemError("abort: message: a text is expected", "message")
    return Abort(Status[status], message)


def _path(dotted: str, key: str) -> Path:
    path = tuple(dotted.split("."))
    if not all(path):
        raise _ProblemError(f"{key}: {_shown(dotted)} is no path such as user.name or items.0.units", key)
    return path


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise _ProblemError(f"{key}: a text is expected, not {_shown(value)}", key)
    return value


def _texts(fields: dict[str, Any], key: str) -> Sequence[str]:
    value = fields.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _ProblemError(f"{key}: a list of texts is expected, not {_shown(value)}", key)
    return value


def _object(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key, {})
    if not isinstance(value, dict):
        raise _ProblemError(f"{key}: an object is expected, not {_shown(value)}", key)
    return value


def _number(fields: dict[str, Any], key: str, default: float, most: float) -> float:
    value = fields.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or math.isnan(value):
        raise _ProblemError(f"{key}: a number from 0 to {most:g} is expected, not {_shown(value)}", key)
    return float(value)


def _unknown(given: dict[str, Any], known: Sequence[str], where: str) -> _ProblemError | None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            return _ProblemError(f"{where} has no {_shown(key)}; {hint}", key)
    return None


def _refuse(name: str, line: int, problem: _ProblemError | None) -> None:
    if problem is not None:
        raise RulesError(f"{name}:{line}: {problem}")


_shown: Callable[[Any], str] = lambda value: json.dumps(value, ensure_ascii=True)[:80]  # noqa: E731
