"""From the events of calls to their records."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from app.loom.call import Altered, Answered, Direction, Ended, Event, HalfClosed, Message, Started
from app.loom.recording.duplicates import Duplicates
from app.loom.recording.memo import Memo
from app.loom.recording.record import MESSAGE_BYTES, Record, headers_bytes
from app.loom.recording.redaction import Redaction
from app.loom.recording.ring import Ring

MAX_LIVE: Final = 20_000
"""Most calls in flight that are recorded; those past it go by unrecorded, and are counted."""
MAX_MESSAGES: Final = 2_000
"""Of one call. The first half is kept, and the newest of the rest."""
MAX_ALTERED: Final = 200
"""What rules have done to one call is kept up to here."""
MAX_CALL_BYTES: Final = 8 << 20
"""Of one call's messages, as kept."""
_REQUEST: Final = Direction.REQUEST


class Sink(Protocol):
    """Is told of records: on the event loop, synchronously. It is to be quick and must not raise."""

    def finished(self, record: Record) -> None:
        """It has ended, and will not change any more."""
        ...


@runtime_checkable
class LiveSink(Sink, Protocol):
    """Is told of calls in flight, too."""

    def changed(self, record: Record) -> None:
        """It began, or has more than before."""
        ...


class Recorder:
    """Called with every event of every call, in order. Never raises, and never waits."""

    def __init__(
        self,
        ring: Ring,
        sinks: Sequence[Sink] = (),
        *,
        redaction: Redaction | None = None,
        duplicates: Duplicates | None = None,
        schema_of: Callable[[str], str | None] = lambda _method: None,
    ) -> None:
        """`schema_of` tells, at once, the hash of the schema that knows a method now."""
        self.ring = ring
        self._changed = tuple(sink.changed for sink in sinks if isinstance(sink, LiveSink))
        self._finished = tuple(sink.finished for sink in sinks)
        redacted = redaction or Redaction()
        self._kept = Memo(lambda headers: (kept := redacted(headers), headers_bytes(kept)))
        self._duplicates = Duplicates() if duplicates is None else duplicates
        self._schema_of = schema_of
        self._live: dict[int, Record] = {}
        self._run = secrets.token_hex(4)
        self.dropped = 0
        """Calls that were not recorded at all, because too many were in flight."""
        self.handlers: Mapping[type[Event], Callable[[Any], None]] = {
            Started: self._started,
            Answered: self._answered,
            Message: self._message,
            HalfClosed: self._half_closed,
            Ended: self._ended,
        }
        """What it does with an event, by type: for who is to save the way through `__call__`."""

    def __call__(self, event: Event) -> None:
        self.handlers[type(event)](event)

    @property
    def live(self) -> int:
        """Calls in flight."""
        return len(self._live)

    def altered(self, event: Altered) -> None:
        """A rule changed something of a call in flight, or could not."""
        record = None if event.call is None else self._live.get(event.call)
        if record is not None and len(record.altered) < MAX_ALTERED:
            record.altered += (event,)
            self.ring.grow(record, MESSAGE_BYTES + len(event.problem))

    def _started(self, event: Started) -> None:
        call = event.call
        if len(self._live) >= MAX_LIVE:
            self.dropped += 1
            return
        record = Record(f"{self._run}-{call}", event, *self._kept(event.headers))
        record.schema = self._schema_of(event.method)
        self._live[call] = record
        self.ring.add(record)
        for changed in self._changed:
            changed(record)

    def _answered(self, event: Answered) -> None:
        record = self._live.get(event.call)
        if record is not None:
            record.response_headers, size = self._kept(event.headers)
            self.ring.grow(record, size)

    def _message(self, event: Message) -> None:
        record = self._live.get(event.call)
        if record is None:
            return
        if event.direction is _REQUEST:
            record.requests += 1
        else:
            record.responses += 1
        messages = record.messages
        size = len(event.data) + MESSAGE_BYTES
        if len(messages) >= MAX_MESSAGES or record.size_bytes + size > MAX_CALL_BYTES:
            self._make_room(record, size)
        messages.append(event)
        self.ring.grow(record, size)
        for changed in self._changed:
            changed(record)

    def _half_closed(self, event: HalfClosed) -> None:
        record = self._live.get(event.call)
        if record is not None:
            self._duplicates.asked(record)

    def _ended(self, event: Ended) -> None:
        record = self._live.pop(event.call, None)
        if record is None:
            return
        if record.schema is None:
            record.schema = self._schema_of(record.started.method)  # it may have come meanwhile
        trailers, size = self._kept(event.trailers)
        record.ended = event if trailers is event.trailers else event._replace(trailers=trailers)
        self._duplicates.ended(record)
        self.ring.grow(record, size)
        for finished in self._finished:
            finished(record)

    def _make_room(self, record: Record, size: int) -> None:
        """For a message of so many bytes."""
        messages = record.messages
        while messages and (len(messages) >= MAX_MESSAGES or record.size_bytes + size > MAX_CALL_BYTES):
            place = len(messages) // 2  # the first half stays: how it began says most
            gone = messages.pop(place)
            record.left_out += 1
            self.ring.grow(record, -(len(gone.data) + MESSAGE_BYTES))
