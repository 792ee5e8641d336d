"""Sending any number of templates in messages of a bounded size."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable

from app.proto.template.v1 import template_pb2 as pb

MAX_TEMPLATES = 100
MAX_BYTES = 512 << 10
"""A message is sent when it has so many templates or bytes. The longest template there can be is a quarter of a MiB,
so none comes to more than the 1 MiB that the service takes."""


async def batches(
    templates: Iterable[tuple[str, str]] | AsyncIterable[tuple[str, str]], request_id: str
) -> AsyncGenerator[pb.ImportTemplatesRequest, None]:
    """The messages of an import, at least one; the first has the request id."""
    message, size = pb.ImportTemplatesRequest(request_id=request_id), 0
    async for template in _each(templates):
        added = pb.NewTemplate(name=template[0], body=template[1])
        length = added.ByteSize()
        if message.templates and (size + length > MAX_BYTES or len(message.templates) == MAX_TEMPLATES):
            yield message
            message, size = pb.ImportTemplatesRequest(), 0
        message.templates.append(added)
        size += length
    yield message


async def _each(
    templates: Iterable[tuple[str, str]] | AsyncIterable[tuple[str, str]],
) -> AsyncIterator[tuple[str, str]]:
    if isinstance(templates, AsyncIterable):
        async for template in templates:
            yield template
    else:
        for template in templates:
            yield template
