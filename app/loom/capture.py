"""What is recorded of the calls, and what explains it: wired together, with one life."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from app.loom import tunnel
from app.loom.call import Altered, Event, StreamKind
from app.loom.decoding import declared_kind
from app.loom.metrics import LoomMetrics
from app.loom.proxy.upstream import Upstream
from app.loom.recording.duplicates import Duplicates
from app.loom.recording.feed import Feed
from app.loom.recording.record import Record
from app.loom.recording.recorder import Recorder, Sink
from app.loom.recording.redaction import Redaction
from app.loom.recording.ring import MAX_BYTES, MAX_OLDER, MAX_RECORDS, Ring
from app.loom.recording.session import SessionFile, load
from app.loom.schema.cache import SchemaCache
from app.loom.schema.errors import SchemaError, SchemaUnavailableError
from app.loom.schema.reflection import ReflectionClient
from app.loom.schema.schema import Schema

_log = logging.getLogger(__name__)

PROBLEMS_TOLD: Final = 10
"""Lines of a session file that could not be read are logged one by one up to here, and then counted."""


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """What is kept, where, and what explains it."""

    session: Path | None = None
    """The session's file: read at the start, and written; `None` where nothing is written."""
    redact: Sequence[str] = ()
    """Names of metadata that are secret, besides those that always are."""
    reflect_metadata: Sequence[tuple[str, str]] = ()
    """Sent with reflection, such as credentials."""
    schema: Schema | None = field(default=None, repr=False)
    """Explains messages where the backend has no reflection."""


@dataclass(frozen=True, slots=True)
class Capture:
    """The calls that went by, and their meaning."""

    ring: Ring
    feed: Feed
    recorder: Recorder
    schemas: SchemaCache
    session: SessionFile | None

    def kind(self, record: Record) -> StreamKind:
        """As its method is declared, where its schema is known; else as the traffic looks."""
        schema = None if record.schema is None else self.schemas.by_hash(record.schema)
        return declared_kind(record, schema)


class CountedAndRecorded(LoomMetrics):
    """Tells the metrics first, then the recorder, and the schema cache when the backend is back."""

    def __init__(self) -> None:
        super().__init__()
        self._recorder: Recorder | None = None
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {}  # the recorder's
        self._schemas: SchemaCache | None = None
        self._is_away = False

    def record(self, recorder: Recorder, schemas: SchemaCache) -> None:
        """From now on."""
        self._recorder, self._handlers, self._schemas = recorder, recorder.handlers, schemas

    def call(self, event: Event) -> None:
        # Not by way of `super()` and of the recorder itself, which would add to each of six events a call.
        kind = type(event)
        count = self.counts.get(kind)
        if count is not None:
            count(event)
        record = self._handlers.get(kind)
        if record is not None:
            record(event)

    def mutated(self, event: Altered, method: str) -> None:
        super().mutated(event, method)
        if self._recorder is not None:
            self._recorder.altered(event)

    def dialled(self, seconds: float) -> None:
        super().dialled(seconds)
        if self._is_away and self._schemas is not None:
            self._is_away = False
            self._schemas.backend_returned()

    def dial_failed(self) -> None:
        super().dial_failed()
        self._is_away = True

    def disconnected(self, live: int, *, backend_lost: bool) -> None:
        super().disconnected(live, backend_lost=backend_lost)
        self._is_away = self._is_away or backend_lost


@asynccontextmanager
async def capturing(
    config: CaptureConfig, upstream: Upstream, events: CountedAndRecorded, extra: Sequence[Sink] = ()
) -> AsyncIterator[Capture]:
    """Record what `events` are told, until left: what is pending is written then. Raises `SessionError`.

    `upstream` is where reflection is asked for; `extra` are more sinks.
    """

    def channel() -> AbstractAsyncContextManager[grpc.aio.Channel]:
        return tunnel.channel(upstream)

    reflection = ReflectionClient(channel, metadata=config.reflect_metadata)

    async def fetch() -> Schema:
        try:
            return await reflection.fetch()
        except SchemaError:
            if config.schema is not None:
                return config.schema
            raise
        except OSError as error:
            raise SchemaUnavailableError(f"no way to ask: {error.strerror or error}") from error

    schemas = SchemaCache(fetch, on_failure=events.schema_failed)
    if config.schema is not None:
        schemas.keep(config.schema)

    def kind(record: Record) -> StreamKind:
        return declared_kind(record, None if record.schema is None else schemas.by_hash(record.schema))

    def schema_set(wanted: str) -> bytes | None:
        found = schemas.by_hash(wanted)
        return None if found is None else found.serialize()

    def schema_of(method: str) -> str | None:
        found = schemas.current(method)
        return None if found is None or found.method(method) is None else found.hash

    ring, feed, redaction = Ring(), Feed(), Redaction(config.redact)
    session = None
    if config.session is not None:
        _reload(config.session, ring, schemas, redaction)
        session = SessionFile(config.session, schema_set=schema_set, kind=kind)
    sinks: list[Sink] = [feed, *extra, *([session] if session else [])]
    recorder = Recorder(ring, sinks, redaction=redaction, duplicates=Duplicates(events.duplicate), schema_of=schema_of)
    events.drops_of("recorder", lambda: recorder.dropped)
    events.drops_of("feed", lambda: feed.left_out)
    if session is not None:
        written = session
        events.drops_of("session", lambda: written.dropped)
    events.record(recorder, schemas)
    try:
        yield Capture(ring, feed, recorder, schemas, session)
    finally:
        feed.close()
        if session is not None:
            await session.aclose()
        await schemas.aclose()


def _reload(path: Path, ring: Ring, schemas: SchemaCache, redaction: Redaction) -> None:
    loaded = load(path, MAX_RECORDS + MAX_OLDER, MAX_BYTES)
    for data in loaded.schemas:
        try:
            schemas.keep(Schema.parse(data))
        except SchemaError as error:
            loaded.problems.append(f"{path}: a schema in it: {error}")
    for record in loaded.records:  # what is a secret now may have been none when it was recorded, or elsewhere
        record.headers, record.response_headers = redaction(record.headers), redaction(record.response_headers)
        if record.ended is not None:
            record.ended = record.ended._replace(trailers=redaction(record.ended.trailers))
    ring.restore(loaded.records)
    for problem in loaded.problems[:PROBLEMS_TOLD]:
        _log.warning("session: %s", problem)
    if len(loaded.problems) > PROBLEMS_TOLD:
        _log.warning("session: %d more lines of %s could not be read", len(loaded.problems) - PROBLEMS_TOLD, path)
