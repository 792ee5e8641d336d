"""One call as it is kept: from its start on, and growing until its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final

from app.loom.call import Altered, Direction, Ended, Headers, Message, Started, Status, StreamKind

BASE_BYTES: Final = 1_500
"""By which a record's size is estimated, besides what it holds."""
MESSAGE_BYTES: Final = 150
HEADER_BYTES: Final = 100
NO_TEXTS: Final[Mapping[tuple[Direction, int], str]] = MappingProxyType({})


class Herd:
    """Identical calls, each in flight together with another one of them."""

    __slots__ = ("asked", "calls", "in_flight", "number", "seconds")

    def __init__(self, number: int, asked: tuple[str, bytes] = ("", b"")) -> None:
        self.number = number
        """Unique in this process."""
        self.asked = asked
        """Their method, and request or its digest."""
        self.calls = 0
        """So far; one call is no herd."""
        self.in_flight = 0
        self.seconds = 0.0
        """How long those that have ended took, together."""


class Record:
    """A call that went by. Belongs to one event loop until it has ended; from then on it never changes."""

    __slots__ = (
        "altered", "ended", "headers", "herd", "id", "left_out", "messages", "requests", "response_headers",
        "responses", "schema", "size_bytes", "started", "texts",
    )  # fmt: skip

    def __init__(self, record_id: str, started: Started, headers: Headers, headers_size: int | None = None) -> None:
        """`headers_size` is `headers_bytes` of them, where that is known."""
        self.id = record_id
        """Unique over restarts."""
        self.started = started
        """Its own headers are not for showing: see `headers`."""
        self.headers = headers
        """The request's, redacted."""
        self.response_headers: Headers = ()
        self.messages: list[Message] = []
        """As they were told of, in the order in which they passed."""
        self.texts: Mapping[tuple[Direction, int], str] = NO_TEXTS
        """JSON, by direction and position, of messages that were recorded as that alone: `messages` has none of their
        bytes."""
        self.altered: tuple[Altered, ...] = ()
        """What rules have done to it, the first of it. Requests are kept as the client sent them, responses as it got
        them: changed."""
        self.left_out = 0
        """Messages that passed and are not among them, for want of room."""
        self.requests = self.responses = 0
        """Messages that have passed, kept or not."""
        self.ended: Ended | None = None
        """Its trailers redacted."""
        self.schema: str | None = None
        """The hash of the schema that explains its messages."""
        self.herd: Herd | None = None
        """The calls like this one that were in flight when it was asked; itself alone at first."""
        self.size_bytes = BASE_BYTES + (headers_bytes(headers) if headers_size is None else headers_size)
        """By estimate."""

    @property
    def is_mutated(self) -> bool:
        """Whether rules have changed anything of it."""
        return bool(self.altered) and any(not each.problem for each in self.altered)

    @property
    def is_live(self) -> bool:
        return self.ended is None

    @property
    def status(self) -> Status | None:
        """`None` while it is live, and where its end was not seen."""
        return None if self.ended is None else self.ended.status

    @property
    def duration_s(self) -> float | None:
        """`None` while it is live."""
        return None if self.ended is None else self.ended.at - self.started.at

    def kind(self, declared: StreamKind | None = None) -> StreamKind:
        """What its method is declared as, else what the traffic looks like so far."""
        if declared is not None:
            return declared
        if self.ended is not None:
            return self.ended.kind
        return StreamKind.of(client_streams=self.requests > 1, server_streams=self.responses > 1)

    def since_start_s(self, message: Message) -> float:
        """How long after the call's start one of its messages has passed."""
        return message.at - self.started.at

    def of(self, direction: Direction) -> Sequence[Message]:
        return [message for message in self.messages if message.direction is direction]


def headers_bytes(headers: Headers) -> int:
    """By estimate."""
    return HEADER_BYTES * len(headers) + sum(map(len, chain.from_iterable(headers)))
