"""What the intercept lane asks of whoever decides on calls. The lane knows no rules and no schema."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from app.loom.call import Direction, Headers, Status


class CallInterception(Protocol):
    """What is to be done to one call."""

    @property
    def hold(self) -> Callable[[], Awaitable[None]] | None:
        """What is waited for before the call goes on; it must end by itself. `None`: nothing."""

    @property
    def abort(self) -> tuple[Status, str] | None:
        """The status and message by which the call is answered, unseen by the backend. Asked after `hold`."""

    def headers(self, direction: Direction, headers: Headers) -> Headers:
        """As they are to be sent on: of a request, and of a response; its trailers stay."""

    def rewrites(self, direction: Direction) -> bool:
        """Whether messages that way are to be shown to `message`. Asked after `hold`."""

    def message(self, direction: Direction, data: bytes) -> bytes | None:
        """An uncompressed message as it is to be sent on; `None` where it stays as it was."""

    def left(self, direction: Direction, why: str) -> None:
        """A message could not be shown, and has passed as it was."""


class Interception(Protocol):
    """Decides, call by call. Called on the event loop, in line with the bytes: must be quick, and must not raise."""

    @property
    def is_active(self) -> bool:
        """Whether new connections are to take the intercept lane."""

    def for_call(self, call: int | None, method: str) -> CallInterception | None:
        """For a call that begins; `call` is its number in the events, if it is told of. `None`: it passes as it is."""
