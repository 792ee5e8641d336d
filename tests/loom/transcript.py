"""A connection by hand, for the relay: what is sent on it, and the account of its calls."""

from __future__ import annotations

import itertools

from hpack import Encoder

from app.loom.call import Ended
from app.loom.proxy.framing import PREFACE, Budget
from app.loom.proxy.limits import Limits
from app.loom.proxy.live import Peer
from app.loom.proxy.relay import Relay
from tests.loom import wire
from tests.loom.account import Account, Call
from tests.loom.wire import OK_TRAILERS, REQUEST_HEADERS, RESPONSE_HEADERS, data, headers, message

CANCEL = 8
BUDGET_BYTES = 1_000_000


class Transcript:
    """A relay, an encoder for either direction, and a clock that is set."""

    def __init__(self, limits: Limits | None = None, account: Account | None = None) -> None:
        self.account = account or Account()
        self.now = 100.0
        self.client, self.backend = Encoder(), Encoder()
        self.budget = Budget(BUDGET_BYTES)
        self.relay = Relay(
            Peer(7, "192.0.2.1:1234"),
            self.account,
            limits=limits or Limits(),
            calls=itertools.count(1),
            budget=self.budget,
            clock=lambda: self.now,
            wall_clock=lambda: 1_700_000_000.0,
        )
        self.relay.client_bytes(PREFACE + wire.settings())
        self.relay.backend_bytes(wire.settings())

    def ask(self, stream: int = 1, more: list[tuple[str, str]] | None = None, *, end: bool = False) -> None:
        self.relay.client_bytes(headers(self.client, stream, [*REQUEST_HEADERS, *(more or [])], end=end))

    def answer(self, stream: int = 1, fields: list[tuple[str, str]] | None = None, *, end: bool = False) -> None:
        self.relay.backend_bytes(headers(self.backend, stream, fields or RESPONSE_HEADERS, end=end))

    def unary(self, stream: int = 1) -> None:
        self.ask(stream)
        self.relay.client_bytes(data(stream, message(b"ask"), end=True))
        self.answer(stream)
        self.relay.backend_bytes(data(stream, message(b"answer")))
        self.answer(stream, OK_TRAILERS, end=True)

    @property
    def calls(self) -> list[Call]:
        assert not self.account.faults
        return list(self.account.calls.values())

    @property
    def end(self) -> Ended:
        (call,) = self.calls
        return call.end
