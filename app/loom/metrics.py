"""Every metric of Loom, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from app.concurrency.breaker import BreakerState
from app.loom.call import Altered, Direction, Ended, Ending, Event, Message, Started, Status, first_value
from app.loom.proxy.events import Blindness, Culprit, Refusal
from app.telemetry.plain import Count, Distribution, PlainCounter, PlainGauge, PlainHistogram

SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
OTHER: Final = "other"
"""The method label of calls to paths that no backend has shown to be a method."""
MAX_METHODS: Final = 500
UNSEEN: Final = "UNSEEN"
"""The status label of calls that went out of sight."""
_REQUEST: Final = Direction.REQUEST
_SAYS_NOTHING: Final = frozenset(
    b"%d" % status for status in (Status.UNIMPLEMENTED, Status.UNAUTHENTICATED, Status.PERMISSION_DENIED)
)
"""As they are sent: what the client makes of a late answer is another matter."""
_ANSWERED: Final = frozenset({Ending.TRAILERS, Ending.TRAILERS_ONLY})


class LoomMetrics:
    """The metrics of one proxy, in a registry of their own. Implements `app.loom.proxy.events.ProxyEvents`.

    A path is a label only once a backend has answered it as a method that it has: with a status that it would not give
    to any path. Until then, and past 500 methods, calls count under `other`, so that no client can add series at will.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = PlainCounter(
            "loom_proxy_requests",
            "Calls ended, by method and by the status that the client saw; UNSEEN where decoding stopped before.",
            ["method", "status"],
            registry=registry,
        )
        self._seconds = PlainHistogram(
            "loom_proxy_latency_seconds",
            "Time from a call's headers to its end, as they passed.",
            ["method"],
            bounds=SECONDS,
            registry=registry,
        )
        self._under_way = PlainGauge("loom_active_sessions", "Calls under way.", registry=registry).count
        self._messages = PlainCounter(
            "loom_messages", "Messages that passed whole, by direction.", ["direction"], registry=registry
        )
        self._connections = PlainGauge(
            "loom_connections", "Clients joined to a backend connection of their own.", registry=registry
        )
        self._refused = PlainCounter(
            "loom_connections_refused",
            "Clients' connections closed before they reached the backend, and why.",
            ["why"],
            registry=registry,
        )
        self._blinded = PlainCounter(
            "loom_connections_blinded",
            "Connections that could no longer be decoded, and why; their bytes went on.",
            ["why"],
            registry=registry,
        )
        self._broken = PlainCounter(
            "loom_connections_broken",
            "Connections of the intercept lane that Loom has ended, and who had broken HTTP/2, or failed.",
            ["who"],
            registry=registry,
        )
        self._lost = PlainCounter(
            "loom_backend_lost", "Backend connections that ended first, with calls under way.", registry=registry
        )
        self._dials = PlainCounter("loom_dials", "Dials of the backend, by outcome.", ["outcome"], registry=registry)
        self._dial_seconds = PlainHistogram(
            "loom_dial_seconds", "Time to reach the backend.", [], bounds=SECONDS, registry=registry
        )
        self._untracked = PlainCounter(
            "loom_calls_untracked", "Calls not told of, as their connection had too many.", registry=registry
        )
        self._unreadable = PlainCounter(
            "loom_calls_unreadable", "Calls whose messages in one direction could not be told apart.", registry=registry
        )
        self._dropped = PlainCounter(
            "loom_records_dropped",
            "Records that a sink did not get: the recorder at too many live calls, the session file at a slow disk, "
            "the feed at a slow reader.",
            ["sink"],
            registry=registry,
        )
        self._duplicates = PlainCounter(
            "loom_duplicate_inflight",
            "Calls that were asked while an identical one was in flight.",
            ["method"],
            registry=registry,
        )
        self._schema_failures = PlainCounter(
            "loom_schema_fetch_failures", "Fetches of the backend's schema that brought nothing.", registry=registry
        )
        self._drops: dict[str, Callable[[], int]] = {}
        self._mutations = PlainCounter(
            "loom_mutations",
            "Messages, and headers, that rules have changed, by method.",
            ["method", "direction"],
            registry=registry,
        )
        self._mutations_left = PlainCounter(
            "loom_mutations_failed",
            "Messages that rules are for and that could not be changed; they passed as they were.",
            ["direction"],
            registry=registry,
        )
        self._breaker = PlainGauge(
            "loom_circuit_breaker_state",
            "The circuit breaker before the backend: 0 closed, 1 half-open, 2 open.",
            registry=registry,
        )
        for direction in Direction:
            self._mutations_left.child(direction.value)
        for why in get_args(Refusal):
            self._refused.child(why)
        for reason in get_args(Blindness):
            self._blinded.child(reason)
        for who in get_args(Culprit):
            self._broken.child(who)
        self._reached, self._unreached = self._dials.child("reached"), self._dials.child("failed")
        self._dial_times = self._dial_seconds.child()
        self._requests_sent = self._messages.child(Direction.REQUEST.value)
        self._responses_sent = self._messages.child(Direction.RESPONSE.value)
        self.counts: Mapping[type[Event], Callable[[Any], None]] = {
            Started: self._start,
            Message: self._message,
            Ended: self._end,
        }
        """What it does with an event, by type; the others do not count."""
        self._methods: set[str] = set()
        self._live: dict[int, Started] = {}
        self._ended: dict[tuple[str, Status | None], tuple[Count, Distribution]] = {}

    def call(self, event: Event) -> None:
        count = self.counts.get(type(event))
        if count is not None:
            count(event)

    def connected(self) -> None:
        self._connections.count.value += 1

    def disconnected(self, live: int, *, backend_lost: bool) -> None:
        self._connections.count.value -= 1
        if backend_lost and live:
            self._lost.child().value += 1

    def refused(self, why: Refusal) -> None:
        self._refused.child(why).value += 1

    def dialled(self, seconds: float) -> None:
        self._reached.value += 1
        self._dial_times.observe(seconds)

    def dial_failed(self) -> None:
        self._unreached.value += 1

    def blinded(self, why: Blindness) -> None:
        self._blinded.child(why).value += 1

    def broken(self, who: Culprit) -> None:
        self._broken.child(who).value += 1

    def untracked(self) -> None:
        self._untracked.child().value += 1

    def unreadable(self) -> None:
        self._unreadable.child().value += 1

    def duplicate(self, method: str) -> None:
        """An identical call is in flight."""
        self._duplicates.child(method if method in self._methods else OTHER).value += 1

    def mutated(self, event: Altered, method: str) -> None:
        """A rule changed something of a call of this method, or could not."""
        if event.problem:
            self._mutations_left.child(event.direction.value).value += 1
        else:
            if event.position is not None and len(self._methods) < MAX_METHODS:
                self._methods.add(method)  # its types are known, so it is a method
            label = method if method in self._methods else OTHER
            self._mutations.child(label, event.direction.value).value += 1

    def breaker_changed(self, _old: BreakerState, new: BreakerState) -> None:
        """The breaker before the backend is in another state."""
        self._breaker.count.value = new.value

    def schema_failed(self) -> None:
        """The backend's schema could not be had."""
        self._schema_failures.child().value += 1

    def drops_of(self, sink: str, total: Callable[[], int]) -> None:
        """`total` tells how many records this sink has dropped so far; it is asked when the metrics are."""
        self._drops[sink] = total

    def exposition(self) -> tuple[bytes, str]:
        """All metrics as text, and its content type."""
        for sink, total in self._drops.items():
            self._dropped.child(sink).value = total()
        encode, content_type = choose_encoder("")
        return encode(self.registry), content_type

    def _message(self, event: Message) -> None:
        (self._requests_sent if event.direction is _REQUEST else self._responses_sent).value += 1

    def _start(self, event: Started) -> None:
        self._live[event.call] = event
        self._under_way.value += 1

    def _end(self, event: Ended) -> None:
        started = self._live.pop(event.call)
        self._under_way.value -= 1
        method = started.method
        if method not in self._methods:
            method = self._admitted(method, event)
        kept = self._ended.get((method, event.status))
        if kept is None:
            status = UNSEEN if event.status is None else event.status.name
            kept = self._requests.child(method, status), self._seconds.child(method)
            self._ended[method, event.status] = kept
        count, seconds = kept
        count.value += 1
        seconds.observe(event.at - started.at)

    def _admitted(self, method: str, event: Ended) -> str:
        """The label of a method that has none yet."""
        said = first_value(event.trailers, b"grpc-status")
        is_known = event.ending in _ANSWERED and event.http_status == 200 and said not in _SAYS_NOTHING
        if not is_known or len(self._methods) >= MAX_METHODS:
            return OTHER
        self._methods.add(method)
        return method
