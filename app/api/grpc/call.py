"""A call as the interceptors see it, whatever its kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import grpc

from app.telemetry.plain import Count


class Kind(StrEnum):
    """Which sides of a method stream."""

    UNARY = "unary"
    SERVER_STREAMING = "server_streaming"
    CLIENT_STREAMING = "client_streaming"
    BIDI_STREAMING = "bidi_streaming"


@dataclass(frozen=True, slots=True)
class Method:
    """A method that the server has. `name` is fit for labels and logs: the number of methods is fixed."""

    service: str
    name: str
    kind: Kind

    @property
    def path(self) -> str:
        """As it stands in `:path`."""
        return f"/{self.name}"


UNKNOWN = Method(service="", name="unknown", kind=Kind.BIDI_STREAMING)
"""Stands for all that the server doesn't have: what a client asks for is no label, and nothing of its is awaited."""


class Tally:
    """Where messages are counted as they come and go: a stream may last for hours."""

    __slots__ = ("received", "sent")

    def __init__(self, received: Count, sent: Count) -> None:
        self.received = received
        self.sent = sent


UNCOUNTED = Tally(Count(), Count())
"""Where nobody looks."""


class Call:
    """One call: what came with it, and what has become of it so far.

    `metadata` is as the client sent it, not to be trusted into logs or labels. `client` is the name that its token
    stands for, where it was asked for one. `received` and `sent` count messages; `tally` is told of each. `status` is
    the name of the gRPC status that it ends with, right once `Failures` has seen its end.
    """

    __slots__ = ("client", "context", "metadata", "method", "received", "request_id", "sent", "status", "tally")

    def __init__(self, method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.method = method
        self.context = context
        self.metadata: tuple[tuple[str, str | bytes], ...] = context.invocation_metadata()
        self.client: str | None = None
        self.request_id = ""
        self.received = 0
        self.sent = 0
        self.status = "OK"
        self.tally = UNCOUNTED

    def has_received(self) -> None:
        """A message was taken from the client."""
        self.received += 1
        self.tally.received.value += 1

    def has_sent(self) -> None:
        """A message was given to the client."""
        self.sent += 1
        self.tally.sent.value += 1

    def values(self, name: str) -> list[str | bytes]:
        """All values that the client sent under a name."""
        return [value for key, value in self.metadata if key == name]


Behaviour = Callable[[Call], Awaitable[bytes | None]]
"""What is done for a call. It reads the requests from the call's context, those of a method that takes one too, and
returns the answer's bytes, or `None` where the server streams."""


class Interceptor(Protocol):
    """One concern of every call. It is asked once for each method, when the server is made, not at each call."""

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """`behaviour` with this concern around it, or as it is where the concern has nothing to do with `method`."""
        ...
