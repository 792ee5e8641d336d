"""What a call is, as told by whoever watches it go by: five kinds of events, in the order in which things happened.

`Started` comes first and `Ended` last, exactly one of each; between them `Answered` at most once, `HalfClosed` at most
once, and a `Message` for each message as its last byte has passed. Events are plain tuples: making one costs less than
anything else that is done for a call.
"""

from __future__ import annotations

from base64 import b64decode
from enum import Enum, IntEnum
from typing import NamedTuple

Headers = tuple[tuple[bytes, bytes], ...]
"""Names and values in the order sent, duplicates and pseudo-headers included, `-bin` values as they were encoded."""


def first_value(headers: Headers, name: bytes) -> bytes:
    """Of the first one with this name; empty where there is none."""
    return next((value for each, value in headers if each == name), b"")


def binary_value(sent: bytes) -> bytes:
    """The bytes that a `-bin` value stands for: sent in base64, with padding or without, or, where both peers have set
    GRPC_ALLOW_TRUE_BINARY_METADATA, as they are after a zero byte (gRPC proposal G1). Raises `ValueError` where it is
    neither; several values joined by commas are to be parted before."""
    if sent.startswith(b"\0"):
        return sent[1:]
    return b64decode(sent + b"=" * (-len(sent) % 4), validate=True)


class Status(IntEnum):
    """The status codes of gRPC (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Direction(Enum):
    """Which way a message goes: a request from the client, a response from the backend."""

    REQUEST = "request"
    RESPONSE = "response"


class StreamKind(Enum):
    """Which side may send more than one message."""

    UNARY = "unary"
    SERVER_STREAMING = "server_streaming"
    CLIENT_STREAMING = "client_streaming"
    BIDI_STREAMING = "bidi_streaming"

    @classmethod
    def of(cls, *, client_streams: bool, server_streams: bool) -> StreamKind:
        """The kind where these sides send streams."""
        if client_streams:
            return cls.BIDI_STREAMING if server_streams else cls.CLIENT_STREAMING
        return cls.SERVER_STREAMING if server_streams else cls.UNARY


class Ending(Enum):
    """What ended a call, as seen on the wire."""

    TRAILERS = "trailers"
    """The backend's trailers, after its headers."""
    TRAILERS_ONLY = "trailers_only"
    """One header block that is headers and trailers at once."""
    NO_TRAILERS = "no_trailers"
    """The backend ended the stream with data: no gRPC status was sent."""
    RESET_BY_CLIENT = "reset_by_client"
    """RST_STREAM from the client: it cancelled, its deadline was over, or it could not take the answer."""
    RESET_BY_BACKEND = "reset_by_backend"
    """RST_STREAM from the backend."""
    REFUSED = "refused"
    """The backend's GOAWAY says that it will not process this stream; clients may retry it elsewhere."""
    CLIENT_LOST = "client_lost"
    """The client's connection ended while the call was live."""
    BACKEND_LOST = "backend_lost"
    """The backend's connection ended while the call was live."""
    BY_LOOM = "by_loom"
    """Loom answered it itself: a rule says so, or the backend can't be reached."""
    BROKEN_BY_CLIENT = "broken_by_client"
    """The client broke HTTP/2 in the intercept lane, and Loom ended the connection."""
    BROKEN_BY_BACKEND = "broken_by_backend"
    """The backend broke HTTP/2 in the intercept lane, and Loom ended the connection."""
    CUT = "cut"
    """Loom itself ended the connection: it was stopping, and the call took longer than it could wait, or it failed."""
    UNSEEN = "unseen"
    """The call goes on, unseen: the connection could no longer be decoded."""


class Started(NamedTuple):
    """A client opened a call."""

    call: int
    """Unique in this process, rising."""
    at: float
    """Monotonic clock, seconds; so in all events."""
    wall: float
    """Seconds since the epoch."""
    connection: int
    """Unique in this process: which client connection."""
    stream: int
    """The HTTP/2 stream's id on that connection."""
    peer: str
    """The client's address."""
    method: str
    """The path: `/package.Service/Method`."""
    authority: str
    headers: Headers
    timeout_s: float | None
    """What the client's deadline left when it sent the call; `None` where there is none."""


class Answered(NamedTuple):
    """The backend's headers passed. Not told of trailers-only answers."""

    call: int
    at: float
    headers: Headers


class Message(NamedTuple):
    """A message's last byte passed."""

    call: int
    at: float
    direction: Direction
    position: int
    """From 0, for each direction."""
    compressed: bool
    data: bytes
    """Without the 5-byte prefix, as sent: compressed if it was. Shorter than `size` where the message was cut."""
    size: int
    """Bytes of the whole message, without the prefix."""

    @property
    def is_cut(self) -> bool:
        """Whether only the beginning was kept. The message itself passed whole."""
        return len(self.data) < self.size


class HalfClosed(NamedTuple):
    """The client said that it will send no more."""

    call: int
    at: float


class Altered(NamedTuple):
    """A rule changed something of a call as it passed, or could not. Not among the events of what went by."""

    call: int | None
    """`None` where the call is not told of."""
    at: float
    direction: Direction
    position: int | None
    """Of the message, from 0; `None` for headers."""
    problem: str
    """Why it could not be changed, and has passed as it was; empty where it was changed."""


class Ended(NamedTuple):
    """The call is over, or out of sight."""

    call: int
    at: float
    ending: Ending
    status: Status | None
    """The status that the client sees; `None` only where the ending is `UNSEEN`."""
    message: str
    """The backend's `grpc-message`, percent-decoded; else, where there was none, what happened in a few words."""
    trailers: Headers
    """Empty where none were sent. With trailers-only, its one block."""
    http_status: int | None
    """Of the backend's answer; `None` where there was none."""
    reset_code: int | None
    """The HTTP/2 error code of the RST_STREAM or GOAWAY that ended it."""
    requests: int
    """Messages that passed whole."""
    responses: int

    @property
    def kind(self) -> StreamKind:
        """The kind as far as traffic shows it: a stream of exactly one message looks like none.

        No message at all counts as a stream only where the status is OK, since a call that failed may have been cut
        short of its one message.
        """
        if self.requests == 1 == self.responses:
            return _UNARY
        is_ok = self.status is Status.OK
        return StreamKind.of(
            client_streams=self.requests > 1 or (is_ok and self.requests == 0),
            server_streams=self.responses > 1 or (is_ok and self.responses == 0),
        )


_UNARY = StreamKind.UNARY

Event = Started | Answered | Message | HalfClosed | Ended
