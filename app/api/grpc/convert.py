"""From what the service answers to the messages of `template.v1`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from app.domain.ports import ImportSummary, Reading
from app.domain.template import Template
from app.proto.template.v1 import template_pb2 as pb
from app.service import from_payload

SOURCES: Mapping[str, pb.Source] = {
    "l1": pb.SOURCE_L1,
    "l2": pb.SOURCE_L2,
    "origin": pb.SOURCE_ORIGIN,
    "shared": pb.SOURCE_SHARED,
    "stale": pb.SOURCE_STALE,
}
"""By what a `Reading` says of its source."""


def template(stored: Template) -> pb.Template:
    return pb.Template(
        id=stored.id, name=stored.name, body=stored.body, version=stored.version, updated_at=stored.updated_at
    )


def state(template_id: int, version: int, payload: bytes | None) -> pb.TemplateState:
    """What is known of an id; `payload` is `None` where there is no such template."""
    found = None if payload is None else template(from_payload(payload))
    return pb.TemplateState(id=template_id, version=version, template=found)


def details(reading: Reading) -> pb.GetTemplateDetailsResponse:
    """The answer to a read that found a template."""
    assert reading.payload is not None  # noqa: S101 - the service raises where there is no template
    return pb.GetTemplateDetailsResponse(
        template=template(from_payload(reading.payload)),
        source=SOURCES[reading.source],
        age=timedelta(seconds=max(0.0, reading.age_s)),
    )


def summary(made: ImportSummary) -> pb.ImportTemplatesResponse:
    return pb.ImportTemplatesResponse(
        imported=made.imported, bytes=made.size_bytes, first_id=made.first_id, last_id=made.last_id
    )
