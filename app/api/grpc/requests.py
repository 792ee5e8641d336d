"""From the messages of `template.v1` to what the use cases take. Every fault of a message is told at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import grpc

from app.domain.errors import InvalidInputError, Violation
from app.domain.ports import ImportBatch
from app.domain.template import TemplateDraft, TemplatePatch, check_id
from app.domain.write_request import check_request_id
from app.proto.template.v1 import template_pb2 as pb

WRITABLE = ("name", "body")
"""The paths that an update mask may have; `*` is all of them."""
MAX_QUOTED_CHARS = 32
DRAFTS_A_TURN = 100
"""How many templates of an import are taken in one turn of the event loop: a message may hold 100,000."""


class Creation(NamedTuple):
    """What CreateTemplate asks for."""

    draft: TemplateDraft
    request_id: str | None


class Update(NamedTuple):
    """What UpdateTemplate asks for."""

    template_id: int
    patch: TemplatePatch
    expected: frozenset[int] | None
    request_id: str | None


class Deletion(NamedTuple):
    """What DeleteTemplate asks for."""

    template_id: int
    expected: frozenset[int] | None
    request_id: str | None


class RequestStream(Protocol):
    """The reading side of a call whose client streams."""

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`."""
        ...


def creation(request: pb.CreateTemplateRequest) -> Creation:
    """Raises `InvalidInputError`, as the other functions here do."""
    with _Faults() as faults:
        request_id = _request_id(faults, request.request_id)
        if _has_template(faults, request):
            with faults.within("template"):
                draft = TemplateDraft(request.template.name, request.template.body)
    return Creation(draft, request_id)


def update(request: pb.UpdateTemplateRequest) -> Update:
    with _Faults() as faults:
        request_id = _request_id(faults, request.request_id)
        expected = _expected(faults, request)
        paths = _paths(faults, request)
        if _has_template(faults, request):
            new = request.template
            with faults.within("template"):
                check_id(new.id)
            with faults.within("template"):
                patch = TemplatePatch(new.name if "name" in paths else None, new.body if "body" in paths else None)
    return Update(new.id, patch, expected, request_id)


def deletion(request: pb.DeleteTemplateRequest) -> Deletion:
    with _Faults() as faults:
        request_id = _request_id(faults, request.request_id)
        expected = _expected(faults, request)
        with faults.within():
            check_id(request.id)
    return Deletion(request.id, expected, request_id)


async def batches(stream: RequestStream) -> AsyncGenerator[ImportBatch, None]:
    """The templates of an import as they come in; a fault is named by its place in the stream."""
    place = 0
    is_first = True
    while (message := await stream.read()) is not grpc.aio.EOF:
        request_id = None
        if is_first:
            with _Faults() as faults:
                request_id = _request_id(faults, message.request_id)
        is_first = False
        for start in range(0, max(1, len(message.templates)), DRAFTS_A_TURN):
            drafts = []
            for new in message.templates[start : start + DRAFTS_A_TURN]:
                try:
                    drafts.append(TemplateDraft(new.name, new.body))
                except InvalidInputError as error:
                    raise error.within(f"templates[{place}]") from None
                place += 1
            yield ImportBatch(drafts, request_id)
            await asyncio.sleep(0)
    # grpc.aio tells a stream that was broken off as one that has ended, and cancels this coroutine only afterwards, by
    # then perhaps too late. It hears of both in the order in which they happen: what is asked of the call now is
    # answered after the cancellation, so that a stream that comes to here was ended by its client.
    await stream.read()


class _Faults:
    """Collects what is wrong with the parts of a message, and raises it at the end of the `with`."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def __enter__(self) -> _Faults:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._violations:
            raise InvalidInputError(*self._violations)

    def add(self, field: str, reason: str) -> None:
        self._violations.append(Violation(field, reason))

    @contextmanager
    def within(self, path: str = "") -> Iterator[None]:
        """Takes what the body raises as what is wrong with the part of this path."""
        try:
            yield
        except InvalidInputError as error:
            self._violations += (error.within(path) if path else error).violations


def _has_template(faults: _Faults, request: pb.CreateTemplateRequest | pb.UpdateTemplateRequest) -> bool:
    if request.HasField("template"):
        return True
    faults.add("template", "must be given")
    return False


def _request_id(faults: _Faults, request_id: str) -> str | None:
    if request_id:
        with faults.within():
            return check_request_id(request_id)
    return None


def _expected(faults: _Faults, request: pb.UpdateTemplateRequest | pb.DeleteTemplateRequest) -> frozenset[int] | None:
    if not request.HasField("expected_version"):
        return None
    if request.expected_version < 1:
        faults.add("expected_version", "must be 1 or more; without it any version is written over")
    return frozenset({request.expected_version})


def _paths(faults: _Faults, request: pb.UpdateTemplateRequest) -> frozenset[str]:
    paths = frozenset(request.update_mask.paths)
    for path in request.update_mask.paths:
        if path != "*" and path not in WRITABLE:
            quoted = repr(path if len(path) <= MAX_QUOTED_CHARS else f"{path[:MAX_QUOTED_CHARS]}...")
            faults.add("update_mask", f"has {quoted}; there are name and body, and * for both")
            break
    return frozenset(WRITABLE) if not paths or "*" in paths else paths
