"""A span for each statement that is carried out within a trace."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

import asyncpg
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from app.storage.postgres import Session
from app.telemetry.tracing import is_traced, span

MAX_TEXT = 2000
"""Characters of a statement's text that a span holds."""


def traced_session(tracer: Tracer, url: str) -> type[Session]:
    """Pooled sessions with the database of `url`, whose statements are spans, by the conventions for databases.

    A span holds the statement's text with its placeholders, and none of its arguments. Outside a trace, as at start
    and in the background, there are none: health checks would be traces of their own.
    """
    parts = urlsplit(url)
    place: dict[str, AttributeValue] = {"db.system.name": "postgresql", "db.namespace": parts.path.strip("/")}
    with contextlib.suppress(ValueError):  # it may name several hosts
        place |= {"server.port": parts.port or 5432, "server.address": parts.hostname or ""}
    return type("TracedSession", (_TracedSession,), {"tracer": tracer, "place": place})


class _TracedSession(Session):
    tracer: ClassVar[Tracer]
    place: ClassVar[dict[str, AttributeValue]]

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        with self._span(query):
            return await super().execute(query, *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> None:
        with self._span(command):
            await super().executemany(command, args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        with self._span(query):
            return await super().fetch(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        with self._span(query):
            return await super().fetchval(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        with self._span(query):
            return await super().fetchrow(query, *args, **options)

    async def copy_records_to_table(self, table_name: str, **options: Any) -> str:
        with self._span(f"COPY {table_name} FROM STDIN"):
            return await super().copy_records_to_table(table_name, **options)

    @contextmanager
    def _span(self, text: str) -> Iterator[None]:
        if not is_traced():
            yield
            return
        operation, shown = _shown(text)
        attributes = self.place | {"db.operation.name": operation, "db.query.text": shown}
        with span(self.tracer, operation, SpanKind.CLIENT, attributes) as started:
            try:
                yield
            except asyncpg.PostgresError as error:
                if error.sqlstate is not None:
                    started.set_attribute("db.response.status_code", error.sqlstate)
                raise


@functools.lru_cache(maxsize=256)
def _shown(text: str) -> tuple[str, str]:
    """The statement's first word, and the statement in one line."""
    line = " ".join(text.split())
    return line.partition(" ")[0].rstrip(";").upper(), line[:MAX_TEXT]
