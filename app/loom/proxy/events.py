"""What happens to connections and calls, told to whoever records or counts it. The proxy knows no metrics library."""

from __future__ import annotations

from typing import Literal, Protocol

from app.loom.call import Event

Refusal = Literal["http1", "tls", "plaintext", "handshake", "garbage", "silent", "full", "stopping", "breaker"]
"""Why a client's connection was closed before it was relayed: it speaks HTTP/1, or TLS where none is spoken, or no TLS
where that is; or its TLS handshake failed or took too long; or it speaks nothing known, or said nothing; or there are
too many; or Loom is stopping; or the circuit breaker is open, and its calls are answered UNAVAILABLE."""
Blindness = Literal["hpack", "header_size", "framing", "tap"]
"""Why a connection can't be decoded any more: HPACK that is wrong, a header block over the limit, frames that
contradict each other, or an error in what listens to the events."""
Culprit = Literal["client", "backend", "loom"]
"""Who has broken a connection of the intercept lane."""


class ProxyEvents(Protocol):
    """Called on the event loop, in line with the bytes: must be quick.

    If `call` raises, the connection that it was called for is told of no more; the others must not raise.
    """

    def call(self, event: Event) -> None:
        """Something happened to a call."""

    def connected(self) -> None:
        """A client's connection and its backend's are joined."""

    def disconnected(self, live: int, *, backend_lost: bool) -> None:
        """Both have ended, `live` calls being under way; whether the backend's was the first to go."""

    def refused(self, why: Refusal) -> None:
        """A client's connection was closed before it reached the backend."""

    def dialled(self, seconds: float) -> None:
        """The backend was reached."""

    def dial_failed(self) -> None:
        """The backend could not be reached, and the client's calls are answered UNAVAILABLE."""

    def blinded(self, why: Blindness) -> None:
        """A connection can't be decoded any more. Its bytes go on."""

    def broken(self, who: Culprit) -> None:
        """A connection of the intercept lane is ended: a peer broke HTTP/2, or Loom failed."""

    def untracked(self) -> None:
        """A call is not told of: its connection has too many."""

    def unreadable(self) -> None:
        """A call's messages in one direction can't be told apart any more."""
