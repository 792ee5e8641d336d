"""One client connection and its backend connection: bytes from either side go to the other as they come.

Each side waits for the other: while one side's write buffer is full, the other side is not read. When one side ends,
what is buffered for the other still goes out, then that side is told the end, too, and gets a while to end itself.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import Final

from app.concurrency.breaker import BreakerOpenError
from app.concurrency.clock import monotonic
from app.concurrency.tasks import TaskSet
from app.loom.call import Ending, Headers
from app.loom.proxy.answer import unavailable
from app.loom.proxy.backlog import Backlog
from app.loom.proxy.events import Culprit, ProxyEvents, Refusal
from app.loom.proxy.framing import PREFACE
from app.loom.proxy.http2 import GOAWAY
from app.loom.proxy.intercept import Interceptor
from app.loom.proxy.legs import BackendLeg, ClientLeg, Leg, peer_address
from app.loom.proxy.limits import Limits
from app.loom.proxy.link import GuardedUpstream, Link
from app.loom.proxy.relay import Relay
from app.loom.proxy.upstream import DialError

_log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""After a dial that failed: when clients are told to try again, and how long their connection is kept to answer."""
_REFUSAL_LINGER_S: Final = 2.0
_HTTP1 = re.compile(rb"(?!PRI )[A-Z]{1,16} ")
_HTTP1_SO_FAR = re.compile(rb"[A-Z]{1,16}")
_TLS = b"\x16\x03"
_HTTP1_TEXT = (
    b"This port speaks gRPC, which is HTTP/2: point a gRPC client at it. HTTP/1 is spoken on Loom's --ui port.\n"
)
_HTTP1_ANSWER = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%s" % (len(_HTTP1_TEXT), _HTTP1_TEXT)
)


MakeLane = Callable[
    [Relay, Callable[[bytes], None], Callable[[bytes], None] | None, Callable[[Ending, str], None], Headers],
    Interceptor,
]
"""Of the relay that reads along, where to write for the client and for the backend, and what to do where a peer breaks
HTTP/2. Without a backend, each call gets the headers."""


class Connection:
    """A client's connection, from its acceptance to the end of both sides."""

    def __init__(
        self,
        number: int,
        upstream: GuardedUpstream,
        events: ProxyEvents,
        limits: Limits,
        tasks: TaskSet,
        backlog: Backlog,
        *,
        make_relay: Callable[[int, str, Callable[[], None]], Relay],
        make_lane: MakeLane,
        is_interception_wanted: Callable[[], bool],
        on_accepted: Callable[[Connection], bool],
        on_closed: Callable[[Connection], None],
    ) -> None:
        """`on_accepted` says whether there is room for it."""
        self.client = ClientLeg(limits, self.accepted, self.greeted_with)
        self.client.on_finished = self._finished
        self._backend: BackendLeg | None = None
        self._relay: Relay | None = None
        self._number = number
        self._upstream = upstream
        self._events = events
        self._limits = limits
        self._tasks = tasks
        self._backlog = backlog
        self._make_relay = make_relay
        self._make_lane = make_lane
        self._is_interception_wanted = is_interception_wanted
        self._link: Link | None = None
        self._lane: Interceptor | None = None
        self._on_accepted = on_accepted
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._dial: asyncio.Task[None] | None = None
        self._greeting = b""
        self._peer = "unknown"
        self._is_refused = False
        self._is_asked = False
        self._live_at_end: int | None = None
        self._ending: Ending | None = None  # what live calls end by: known once the first side has finished
        self._why = ""  # in words, where Loom has ended it

    @property
    def is_idle(self) -> bool:
        """Whether it can be closed without cutting a call short, as far as was seen."""
        self._backlog.read()
        relay = self._relay
        return relay is None or (relay.saw_all and not relay.live)

    @property
    def is_intercepted(self) -> bool | None:
        """Which lane it is in; `None` before it is joined to the backend."""
        return None if self._backend is None else self._lane is not None

    def accepted(self) -> None:
        """The client has connected. Its preface is waited for; the backend is dialled after it."""
        self._peer = peer_address(self.client.transport.get_extra_info("peername"))
        if self._on_accepted(self):
            self._set_timer(self._limits.preface_s, self._silent)
        else:
            self.refuse("full")

    def greeted_with(self, data: bytes) -> None:
        """Bytes that came before the backend was there."""
        self._greeting += data
        if self._dial is not None:
            return
        greeting = self._greeting
        if greeting.startswith(PREFACE):
            self._cancel_timer()
            self.client.transport.pause_reading()
            self._dial = self._tasks.start(self._reach_backend())
            if self._dial is None:
                self.refuse("full")
        elif not PREFACE.startswith(greeting):
            if _HTTP1.match(greeting):
                self.refuse("http1", _HTTP1_ANSWER)
            elif greeting.startswith(_TLS):
                self.refuse("tls")
            elif not _HTTP1_SO_FAR.fullmatch(greeting) and not _TLS.startswith(greeting):
                self.refuse("garbage")

    def refuse(self, why: Refusal, answer: bytes = b"") -> None:
        """Close the connection, of which nothing has reached the backend."""
        if self._is_refused:
            return
        self._is_refused = True
        self._cancel_timer()
        self._events.refused(why)
        detail = f": {self._greeting[:16]!r}" if why == "garbage" else ""
        _log.warning("connection %d from %s is refused, %s%s", self._number, self._peer, _REFUSALS[why], detail)
        self.client.discard()
        if answer:
            self.client.transport.write(answer)
            # Closed while bytes of the request are still coming in, the kernel would reset the connection, and the
            # answer could be lost.
            self.client.tell_end()
            self._set_timer(_REFUSAL_LINGER_S, self.abort)
        else:
            self.client.end()

    def ask_to_go(self) -> None:
        """GOAWAY to the client: it opens new streams on a new connection, and finishes what it has."""
        if self._lane is not None:
            self._lane.ask_to_go()
            return
        self._backlog.read()
        backend, relay = self._backend, self._relay
        if backend is None or relay is None or relay.backend_goaway is not None or self._is_asked:
            return  # the backend's own GOAWAY has asked already, and none may allow more than the one before
        self._is_asked = True
        backend.put_in(GOAWAY)

    def stop(self) -> None:
        """Loom is stopping: ask the client to go, or close what was not joined to the backend yet."""
        if self._relay is not None:
            self.ask_to_go()
        else:
            if self._dial is not None:
                self._dial.cancel()
            self.refuse("stopping")

    def close(self) -> None:
        """End both sides; what was written still goes out."""
        self._ending = self._ending or Ending.CUT
        for leg in self._legs():
            leg.end()

    def abort(self) -> None:
        """End both sides at once."""
        self._ending = self._ending or Ending.CUT
        for leg in self._legs():
            leg.transport.abort()

    async def _reach_backend(self) -> None:
        began = monotonic()
        try:
            backend, link = await self._upstream.dial(lambda: BackendLeg(self._limits))
        except BreakerOpenError as error:
            self._events.refused("breaker")
            message = "Loom's circuit breaker is open: the backend has failed again and again"
            self._answer_all(unavailable("CIRCUIT_BREAKER_OPEN", message, error.retry_after_s))
            return
        except DialError as error:
            self._events.dial_failed()
            _log.warning("connection %d from %s: the backend can't be reached: %s", self._number, self._peer, error)
            self._answer_all(unavailable("BACKEND_UNREACHABLE", "Loom can't reach the backend", RETRY_S))
            return
        self._events.dialled(monotonic() - began)
        if self.client.is_lost:
            link.ended(lost=False)
            backend.transport.abort()
            return
        self._link = link
        self._join(backend)

    def _answer_all(self, headers: Headers) -> None:
        """Each call on this connection by `headers`, for a short while: the next one may find the backend."""
        if self.client.is_lost or self.client.transport.is_closing():
            return
        self._relay = relay = self._make_relay(self._number, self._peer, self._blinded)
        lane = self._lane = self._make_lane(relay, self.client.send, None, self._broken, headers)
        self.client.transport.resume_reading()
        self.client.intercept(None, lane.client_bytes)
        greeting, self._greeting = self._greeting, b""
        self.client.data_received(greeting)
        self._set_timer(RETRY_S, self._dismiss)

    def _dismiss(self) -> None:
        """Enough was answered on this connection."""
        self.ask_to_go()
        self._set_timer(RETRY_S, self.close)

    def _intercept(self, backend: BackendLeg, relay: Relay) -> None:
        lane = self._lane = self._make_lane(relay, self.client.send, backend.send, self._broken, ())
        # Not right now: it is found out while bytes are still being passed on.
        lane.on_drained = lambda: self._later(backend)
        lane.on_started = self._settled
        self.client.intercept(backend, lane.client_bytes)
        if not self.client.transport.is_closing():
            self.client.transport.pause_reading()
        # While the client is not read, it is not noticed either if it goes.
        self._set_timer(self._limits.dial_s, self._unsettled)
        backend.intercept(self.client, lane.backend_bytes)

    def _settled(self) -> None:
        """The backend has told its settings."""
        if self._live_at_end is None:
            self._cancel_timer()
        self.client.resume()

    def _unsettled(self) -> None:
        self._broken(Ending.BROKEN_BY_BACKEND, "the backend broke HTTP/2: it has sent no SETTINGS in time")

    def _broken(self, ending: Ending, why: str) -> None:
        """The intercept lane can't go on: both sides are ended, and live calls as told."""
        _log.warning("connection %d from %s is closed: %s", self._number, self._peer, why)
        self._events.broken(_CULPRITS.get(ending, "loom"))
        if self._live_at_end is None and self._lane is not None:
            self._live_at_end = self._lane.undecided
            self._ending, self._why = self._ending or ending, why
            self._set_timer(self._limits.linger_s, self.abort)
        self.close()

    def _join(self, backend: BackendLeg) -> None:
        relay = self._relay = self._make_relay(self._number, self._peer, self._blinded)
        self._backend = backend
        backend.on_finished = self._finished
        self._events.connected()
        # Reading may be paused again by what is written here, so it is resumed before.
        for leg in (self.client, backend):
            if not leg.transport.is_closing():
                leg.transport.resume_reading()
        if self._is_interception_wanted():
            self._intercept(backend, relay)
        else:
            self.client.join(backend, relay, self._backlog)
            backend.join(self.client, relay, self._backlog)
        greeting, self._greeting = self._greeting, b""
        self.client.data_received(greeting)
        if backend.is_finished:
            self._finished(backend)

    def _finished(self, leg: Leg) -> None:
        """Nothing more will come from one side."""
        backend, relay, lane = self._backend, self._relay, self._lane
        if backend is None or relay is None:
            self._finished_alone()
            return
        self._backlog.read()
        if self._live_at_end is None:
            self._live_at_end = relay.live if lane is None else lane.undecided
            self._ending = self._ending or (Ending.BACKEND_LOST if leg is backend else Ending.CLIENT_LOST)
            self._set_timer(self._limits.linger_s, self.abort)
        if lane is not None and leg is backend:
            lane.backend_ended()
            if not (lane.is_drained or self.client.is_lost):
                return  # the client has not got all that came yet; it is told the end after it
        if self._ending is not None and (leg is backend or leg.is_lost):
            # A client that has only half-closed may still get answers.
            relay.end(self._ending, self._why)
        if leg is backend:
            if leg.is_lost:
                self.client.discard()
            self.client.tell_end()
        elif leg.is_lost:
            backend.discard()
            backend.end()
        else:
            backend.tell_end()
        if self.client.is_finished and backend.is_finished:
            self.client.end()
            backend.end()
        if self.client.is_lost and backend.is_lost:
            self._cancel_timer()
            is_backends = self._ending in (Ending.BACKEND_LOST, Ending.BROKEN_BY_BACKEND)
            self._events.disconnected(self._live_at_end, backend_lost=is_backends)
            self._settle(lost=is_backends and self._live_at_end > 0)
            self._on_closed(self)

    def _settle(self, *, lost: bool) -> None:
        """Both sides are gone."""
        link, self._link = self._link, None
        if link is not None:
            link.ended(lost=lost)
        if self._lane is not None:
            self._lane.close()

    def _later(self, leg: Leg) -> None:
        self._loop.call_soon(self._finished, leg)

    def _blinded(self) -> None:
        # Not right now: the bytes that it was found in are still being passed on.
        self._loop.call_soon(self.ask_to_go)

    def _finished_alone(self) -> None:
        """The client is gone before there was a backend."""
        self.client.end()
        if self.client.is_lost:
            self._cancel_timer()
            if self._dial is not None:
                self._dial.cancel()
            if self._relay is not None:
                self._relay.end(self._ending or Ending.CLIENT_LOST, self._why)
            self._settle(lost=False)
            self._on_closed(self)

    def _silent(self) -> None:
        self.refuse("silent")

    def _legs(self) -> list[Leg]:
        return [self.client] if self._backend is None else [self.client, self._backend]

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, then)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_CULPRITS: Final[Mapping[Ending, Culprit]] = {
    Ending.BROKEN_BY_CLIENT: "client",
    Ending.BROKEN_BY_BACKEND: "backend",
}
_REFUSALS: Final[Mapping[Refusal, str]] = {
    "http1": "it speaks HTTP/1",
    "tls": "it speaks TLS, and this port does not",
    "plaintext": "it speaks no TLS, and this port does",
    "handshake": "its TLS handshake failed",
    "garbage": "it does not begin as HTTP/2 does",
    "silent": "it sent no HTTP/2 preface in time",
    "full": "there are too many",
    "stopping": "Loom is stopping",
}
