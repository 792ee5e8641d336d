"""What the service tells of templates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from app.proto.template.v1 import template_pb2 as pb


@dataclass(frozen=True, slots=True)
class Template:
    """A stored template. `updated_at` is aware, in UTC."""

    id: int
    name: str
    body: str
    version: int
    updated_at: datetime

    @classmethod
    def of(cls, message: pb.Template) -> Template:
        updated_at = message.updated_at.ToDatetime(UTC)
        return cls(message.id, message.name, message.body, message.version, updated_at)


class NewTemplate(NamedTuple):
    """What a template is to be."""

    name: str
    body: str


@dataclass(frozen=True, slots=True)
class Details:
    """A template, and where the answer came from: `l1`, `l2`, `origin`, `shared` or `stale`, or `unspecified`.

    `age_s` is how long ago the template had been loaded from the database.
    """

    template: Template
    source: str
    age_s: float

    @classmethod
    def of(cls, message: pb.GetTemplateDetailsResponse) -> Details:
        source = message.source
        name = pb.Source.Name(source) if source in pb.Source.values() else "SOURCE_UNSPECIFIED"
        age_s = message.age.ToTimedelta().total_seconds()
        return cls(Template.of(message.template), name.removeprefix("SOURCE_").lower(), age_s)


@dataclass(frozen=True, slots=True)
class News:
    """The newest that is known of a watched template: `None` where there is none, with its deletion's version.

    `version` is 0 where the id never was. `versions_skipped` lie between the one told before and this one.
    """

    id: int
    version: int
    template: Template | None
    versions_skipped: int = 0

    @classmethod
    def of(cls, message: pb.WatchTemplatesResponse) -> News:
        state = message.state
        template = Template.of(state.template) if state.HasField("template") else None
        return cls(state.id, state.version, template, message.versions_skipped)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made: how many, their names and bodies in bytes, the lowest id and the highest (0 for none)."""

    count: int
    bytes: int
    first_id: int
    last_id: int

    @classmethod
    def of(cls, message: pb.ImportTemplatesResponse) -> Imported:
        return cls(message.imported, message.bytes, message.first_id, message.last_id)
