"""What a load test needs of whatever it reads templates through."""

from __future__ import annotations

from typing import NamedTuple, Protocol

SOURCES = frozenset({"l1", "l2", "origin", "shared", "stale"})
"""Where the app says that an answer came from."""


class Reply(NamedTuple):
    """What became of one read. `end` is when the whole answer was there, in seconds on the monotonic clock.

    `status` is HTTP's; over gRPC 200 stands for OK, and 0 for all else. `source` is one of `SOURCES` in a good answer.
    `fault` says in a few stable words what is wrong with the answer; it is empty where nothing is.
    """

    end: float
    status: int
    source: str
    fault: str


class Reader(Protocol):
    """One connection, one read at a time."""

    async def open(self) -> None:
        """Connects. Raises `RequestError`."""
        ...

    async def read(self, key: int) -> Reply:
        """Raises `RequestError` where there is no answer."""
        ...

    async def close(self) -> None: ...
