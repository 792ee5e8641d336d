"""Reading a request's query, headers and body, each with an error that says what would be right."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from app.api.http.disconnect import ClientDisconnectedError
from app.api.http.problems import (
    BodyTooLargeError,
    MalformedRequestError,
    RequestTimeoutError,
    UnsupportedMediaTypeError,
)
from app.api.http.schemas import TemplateBody
from app.concurrency.fair_timeout import FairTimeout
from app.domain.errors import InvalidInputError, Violation
from app.domain.template import MAX_ID, TemplateDraft
from app.domain.write_request import check_request_id

B = TypeVar("B", bound=BaseModel)

MAX_VIOLATIONS = 20
"""More are not told: a body can have as many unknown fields as it has room for."""
MAX_FIELD_CHARS = 100
"""Longer names of unknown fields are cut where they are told."""

_NUMBER = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ENTITY_TAG = re.compile(_TAG)
_ENTITY_TAGS = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_OUR_TAG = re.compile(r'"(?P<id>[1-9][0-9]{0,18})-(?P<version>[1-9][0-9]{0,18})"', re.ASCII)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)


def template_id(request: Request) -> int:
    """The query parameter `id`: exactly one whole number from 1 to 2^63 - 1, in plain digits.

    Leading zeros are refused: a template has one URL, as caches in between count by URLs.
    """
    number = _number(request, "id", 1, MAX_ID)
    if number is None:
        raise _bad_parameter("id", f"is missing; give one whole number from 1 to {MAX_ID}")
    return number


def page_bounds(request: Request, max_limit: int) -> tuple[int, int]:
    """The query parameters `after` (default 0) and `limit` (default 20)."""
    after, limit = _number(request, "after", 0, MAX_ID), _number(request, "limit", 1, max_limit)
    return 0 if after is None else after, 20 if limit is None else limit


def _number(request: Request, name: str, least: int, most: int) -> int | None:
    values = request.query_params.getlist(name)
    if not values:
        return None
    if len(values) > 1:
        raise _bad_parameter(name, f"is given {len(values)} times; give it once")
    text = values[0]
    # Longer digit strings are over the bound anyway, and int() of a huge one is slow.
    if not _NUMBER.fullmatch(text) or len(text) > len(str(most)) or not least <= int(text) <= most:
        raise _bad_parameter(name, f"must be a whole number from {least} to {most}, in plain digits, no leading zeros")
    return int(text)


def _bad_parameter(name: str, reason: str) -> MalformedRequestError:
    return MalformedRequestError(f"query parameter {name!r} {reason}", Violation(name, reason))


def entity_tag(template_id: int, version: int) -> str:
    """The strong entity tag of a template at a version."""
    return f'"{template_id}-{version}"'


def cache_control(max_age_s: int) -> str:
    """What clients are told of keeping a template: `max-age`, or with 0 to revalidate each time."""
    return f"public, max-age={max_age_s}" if max_age_s else "no-cache"


def is_known(request: Request, tag: str) -> bool:
    """Whether `If-None-Match` names `tag`, by weak comparison (RFC 9110, 13.1.2). What is no list of tags does not."""
    text = _joined(request, "if-none-match")
    if text is None:
        return False
    return text == "*" or tag in (listed.removeprefix("W/") for listed in _tags(text) or ())


def expected_versions(request: Request, template_id: int) -> frozenset[int] | None:
    """The versions that `If-Match` allows (RFC 9110, 13.1.1); `None` where it is absent or `*`.

    Weak tags never match, nor do tags of another template: they count as versions that do not exist.
    `If-None-Match: *` allows none: it asks to write only what is not there.
    """
    unless = _joined(request, "if-none-match")
    if unless is not None:
        if unless != "*":
            raise MalformedRequestError("If-None-Match can only be * on a write; use If-Match")
        return frozenset()
    text = _joined(request, "if-match")
    if text is None or text == "*":
        return None
    tags = _tags(text)
    if tags is None:
        raise MalformedRequestError('If-Match must be * or a list of entity tags such as "1-3"')
    versions = set()
    for tag in tags:
        ours = _OUR_TAG.fullmatch(tag)
        if ours is not None and int(ours["id"]) == template_id:
            versions.add(int(ours["version"]))
    return frozenset(version for version in versions if version <= MAX_ID)


def request_id(request: Request) -> str | None:
    """What `Idempotency-Key` holds, with or without quotes (draft-ietf-httpapi-idempotency-key-header has them)."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1:
        raise MalformedRequestError(f"Idempotency-Key is given {len(keys)} times; give it once")
    key = keys[0]
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    try:
        return check_request_id(key)
    except InvalidInputError as error:
        raise MalformedRequestError(f"Idempotency-Key {error.violations[0].reason}") from None


def _joined(request: Request, header: str) -> str | None:
    """All lines of a list header as one."""
    lines = request.headers.getlist(header)
    return ",".join(lines).strip(" \t") if lines else None


def _tags(text: str) -> list[str] | None:
    """The entity tags of a list (RFC 9110, 5.6.1 and 8.8.3), `None` where it is none. A tag may hold commas."""
    return _ENTITY_TAG.findall(text) if _ENTITY_TAGS.fullmatch(text) else None


async def draft(request: Request, *, max_bytes: int, timeout_s: float) -> TemplateDraft:
    """The body as a draft: JSON with exactly the fields `name` and `body`, at most `max_bytes` long."""
    body = await json_body(request, TemplateBody, max_bytes=max_bytes, timeout_s=timeout_s)
    return TemplateDraft(body.name, body.body)


async def json_body(request: Request, model: type[B], *, max_bytes: int, timeout_s: float) -> B:
    """The body as the model has it: JSON, each field at most once, at most `max_bytes` long."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaTypeError("the body must be sent as application/json")
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaTypeError("the body must be JSON in UTF-8")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaTypeError("the body must be sent without a content encoding")
    raw = await _body(request, max_bytes, timeout_s)
    try:
        body = model.model_validate_json(raw)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        if problems[0]["type"] == "json_invalid":
            raise MalformedRequestError(problems[0]["msg"]) from None
        raise InvalidInputError(*(_violation(p["loc"], p["msg"]) for p in problems[:MAX_VIOLATIONS])) from None
    # The parser above takes the last of several; the next reader of the same bytes may take the first.
    names = [name for name, _ in json.loads(raw, object_pairs_hook=list, parse_int=str)]
    if len(names) != len(set(names)):
        raise MalformedRequestError("a field is given more than once")
    return body


def _violation(location: tuple[int | str, ...], reason: str) -> Violation:
    field = ".".join(map(str, location)) or "(body)"
    return Violation(field if len(field) <= MAX_FIELD_CHARS else field[:MAX_FIELD_CHARS] + "…", reason)


async def _body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    too_large = BodyTooLargeError(f"the body has more than the {max_bytes} bytes that are taken")
    declared = request.headers.get("content-length", "").lstrip("0")
    if declared.isdecimal() and (len(declared) > len(str(max_bytes)) or int(declared) > max_bytes):
        raise too_large
    chunks, size = [], 0
    try:
        async with FairTimeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeoutError(f"the body did not come within {timeout_s:g} s") from None
    except ClientDisconnect:
        raise ClientDisconnectedError from None
    return b"".join(chunks)
