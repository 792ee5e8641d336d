"""A call in the intercept lane: its two directions, and what is to be done to what passes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from app.loom.call import Direction, Headers, first_value
from app.loom.proxy.flow import Flow
from app.loom.proxy.framing import Budget
from app.loom.proxy.interception import CallInterception
from app.loom.proxy.rewriting import MessageRewriter

_NO_REWRITING: Final = frozenset({b"content-length"})
"""What is left out of headers whose messages may change."""


class Exchange:
    """A call: its two flows, and what is to be done to it."""

    def __init__(self, stream: int, requests: Flow, responses: Flow, asked: CallInterception | None) -> None:
        self.stream = stream
        """The client's."""
        self.backend_stream: int | None = None
        self.requests = requests
        self.responses = responses
        self.asked = asked
        self.hold: asyncio.Task[None] | None = None
        """What it waits for before it goes on."""

    @property
    def is_over(self) -> bool:
        return self.requests.is_over and self.responses.is_over

    def changed(self, direction: Direction, headers: Headers, *, max_bytes: int, budget: Budget) -> Headers:
        """Headers as they go on; from now on messages that way are changed, those of `max_bytes` at most."""
        asked = self.asked
        if asked is None:
            return headers
        if not asked.rewrites(direction):
            return asked.headers(direction, headers)
        flow = self.requests if direction is Direction.REQUEST else self.responses
        flow.rewriter = MessageRewriter(
            partial(asked.message, direction),
            partial(asked.left, direction),
            encoding=first_value(headers, b"grpc-encoding"),
            max_bytes=max_bytes,
            budget=budget,
        )
        return tuple(pair for pair in asked.headers(direction, headers) if pair[0] not in _NO_REWRITING)

    def drop(self) -> None:
        """Nothing of it goes on any more."""
        if self.hold is not None:
            self.hold.cancel()
        self.requests.drop()
        self.responses.drop()
