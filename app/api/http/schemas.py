"""The JSON that HTTP clients send and get."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.domain.template import MAX_BODY_CHARS, MAX_ID, MAX_NAME_CHARS


class TemplateBody(BaseModel):
    """What is written: all fields, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(
        min_length=1, max_length=MAX_NAME_CHARS, examples=["Welcome"], json_schema_extra={"pattern": r"\S"}
    )
    body: str = Field(max_length=MAX_BODY_CHARS, examples=["Hello {{name}}"])


class TemplateOut(BaseModel):
    """A template."""

    id: int = Field(ge=1, le=MAX_ID)
    name: str
    body: str
    version: int = Field(ge=1, description="Rises with every write.")
    updated_at: datetime


class TemplatePage(BaseModel):
    """Templates by id, and where the next ones are."""

    items: list[TemplateOut]
    next: str | None = Field(description="Path and query of the next page; null on the last.")


class FieldProblem(BaseModel):
    """One thing wrong with one field."""

    field: str
    reason: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="The kind of error, for programs.")
    errors: list[FieldProblem] | None = None


class Live(BaseModel):
    status: str


class Ready(BaseModel):
    status: str = Field(description="`ready`, `draining` or `unavailable`.")
    checks: dict[str, str] = Field(description="Each dependency: `ok` or `failed`.")
