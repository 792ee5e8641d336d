"""Every metric of the template service, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from app.telemetry.calls import CallMetrics
from app.telemetry.exposition import exposition
from app.telemetry.live_page import LivePageMetrics
from app.telemetry.plain import Count, Distribution, PlainCounter, PlainGauge, PlainHistogram

SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0,
)  # fmt: skip
"""Histogram buckets that resolve 0.5 ms to 10 s, each at most twice the one before."""

TIERS = ("l1", "l2")
SOURCES = ("l1", "l2", "origin", "shared", "stale")
OPERATIONS = ("get", "take", "put", "release", "invalidate", "decode")
LEASE_ENDS = ("won", "waited", "taken_over", "fenced")
STALE_CAUSES = ("grace", "error", "slow")
REFUSALS = ("full", "timeout")
CERTIFICATE_OUTCOMES = {True: "taken_over", False: "refused"}
REQUEST_ENDS = ("recorded", "repeated", "reused")
IMPORT_ENDS = ("done", "repeated", "refused", "rejected", "late", "broken_off", "failed")
SPAN_ENDS = ("exported", "failed", "dropped")

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one process, in a registry of their own. Implements `app.cache.events.CacheEvents` and
    `app.watching.watches.WatchEvents`.

    Every series with a known label set exists from the start, at zero, so that a rate over it is 0 and not nothing.
    """

    def __init__(self, *, mode: str, version: str, ttl_s: float) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        self._requests = PlainCounter(
            "http_request",
            "HTTP requests answered, by route, method and status.",
            ["path", "method", "status"],
            registry=registry,
        )
        self._request_seconds = PlainHistogram(
            "http_request_duration_seconds",
            "Time from an HTTP request's head to the end of its response.",
            ["path", "method"],
            bounds=SECONDS,
            registry=registry,
        )
        self._in_flight = PlainGauge("http_in_flight_requests", "HTTP requests being answered now.", registry=registry)

        self.calls = CallMetrics(registry, bounds=SECONDS)
        self.live_page = LivePageMetrics(registry)

        self._hits = PlainCounter(
            "cache_hits", "Looks into a cache tier that found a fresh value.", ["tier"], registry=registry
        )
        self._misses = Counter(
            "cache_misses_total", "Looks into the last cache tier that found nothing fresh.", registry=registry
        )
        self._reads = PlainCounter(
            "cache_reads", "Reads answered, by where the answer came from.", ["source"], registry=registry
        )
        self._least = PlainCounter(
            "cache_least_loads",
            "Loads that a perfect cache in this process would have needed: a key's first read in each TTL.",
            registry=registry,
        )
        self._errors = Counter(
            "cache_errors_total",
            "Operations on Redis that failed, and entries that could not be read.",
            ["operation"],
            registry=registry,
        )
        self._ttl = Gauge("cache_ttl_seconds", "Longest life of a cached value.", registry=registry)
        self._stale = Counter(
            "cache_stale_served_total", "Values served past their life, by why.", ["cause"], registry=registry
        )
        self._early = Counter(
            "cache_early_refreshes_total", "Values loaded anew before their life ended.", registry=registry
        )
        self._leases = Counter(
            "cache_lease_total",
            "Leases won, waited for, taken over after a wait, and found lost at the put.",
            ["end"],
            registry=registry,
        )
        self._refused = Counter(
            "bulkhead_rejections_total", "Loads that the bulkhead refused, by why.", ["why"], registry=registry
        )
        self._bulkhead_in_use = Gauge("bulkhead_in_use", "Loads under way.", registry=registry)
        self._bulkhead_waiting = Gauge("bulkhead_waiting", "Loads waiting for their turn.", registry=registry)
        self._invalidations = Counter(
            "cache_invalidations_total", "Changed keys that the database announced.", registry=registry
        )
        self._invalidation_seconds = Histogram(
            "cache_invalidation_delay_seconds",
            "Time from a change's statement in the database to its announcement here, by the two clocks.",
            buckets=SECONDS,
            registry=registry,
        )
        self._pending = Gauge(
            "cache_invalidations_pending", "Invalidations that Redis has yet to take.", registry=registry
        )
        self._coherent = Gauge(
            "cache_listen_up",
            "Whether changes in the database are being announced: 1 yes, 0 no, NaN where that is switched off.",
            registry=registry,
        )
        self._wakeups = Gauge(
            "cache_wakeups_up",
            "Whether the wake-up subscription at Redis is up: 1 yes, 0 no, NaN in modes that have none.",
            registry=registry,
        )
        self._flushes = Counter(
            "cache_flushes_total", "Times that this process was told to forget what it holds.", registry=registry
        )
        self._l1_entries = Gauge("cache_l1_entries", "Values kept in this process.", registry=registry)
        self._l1_bytes = Gauge("cache_l1_bytes", "What they take, by estimate.", registry=registry)
        self._watches = Gauge("watch_streams", "Calls that watch templates.", registry=registry)
        self._watched = Gauge("watch_ids", "Templates that they watch, counted once for each call.", registry=registry)
        self._told = PlainCounter("watch_told", "States of templates told to watchers.", registry=registry)
        self._skipped = PlainCounter(
            "watch_versions_skipped",
            "Versions that were not told, because a newer one had come before the watcher read.",
            registry=registry,
        )
        self._watch_failures = Counter(
            "watch_load_failures_total", "Reads for watchers that failed and are tried again.", registry=registry
        )
        self._watch_refusals = Counter(
            "watch_rejections_total", "Watches refused because there were too many.", registry=registry
        )
        self._shared = PlainCounter(
            "singleflight_shared", "Callers that got the outcome of another caller's flight.", registry=registry
        )
        self._loads = PlainCounter("db_hits", "Load queries that the database answered.", registry=registry)
        self._load_seconds = Histogram(
            "db_load_duration_seconds", "Time of answered load queries.", buckets=SECONDS, registry=registry
        )
        self._breaker = Gauge(
            "breaker_state", "State of a circuit breaker: 0 closed, 1 half-open, 2 open.", ["name"], registry=registry
        )
        self._certificate_reloads = Counter(
            "grpc_certificate_reloads_total",
            "Changes of the TLS files, by whether the server could take them over.",
            ["outcome"],
            registry=registry,
        )
        self._tasks = Gauge(
            "event_loop_tasks", "Tasks of the event loop: requests, calls and background work.", registry=registry
        )
        self._write_requests = Counter(
            "write_requests_total",
            "Writes with a request id: recorded with their answer, answered as before, refused for an id used before.",
            ["end"],
            registry=registry,
        )
        self._imports = Counter("imports_total", "Imports, by how they ended.", ["end"], registry=registry)
        self._imported = Counter("imported_templates_total", "Templates made by imports.", registry=registry)
        self._imports_in_flight = Gauge("imports_in_flight", "Imports under way.", registry=registry)
        self._spans = Counter(
            "tracing_spans_total",
            "Spans of traces, by what became of them: taken by the receiver, not taken, or too many to be kept.",
            ["end"],
            registry=registry,
        )
        self._draining = Gauge("draining", "1 from the moment the process was told to end.", registry=registry)
        self._info = Gauge("app_info", "Always 1; the labels say what runs.", ["mode", "version"], registry=registry)

        # 0 would be an outage to the alert rules, in modes that have neither.
        self._coherent.set(math.nan)
        self._wakeups.set(math.nan)
        self._ttl.set(ttl_s)
        self._info.labels(mode, version).set(1)
        self.in_flight = self._in_flight.count
        self._least_loads = self._least.child()
        self._shares, self._loaded = self._shared.child(), self._loads.child()
        self._tellings, self._skips = self._told.child(), self._skipped.child()
        self._hit_by_tier = {tier: self._hits.child(tier) for tier in TIERS}
        self._read_by_source = {source: self._reads.child(source) for source in SOURCES}
        self._stale_by_cause = {cause: self._stale.labels(cause) for cause in STALE_CAUSES}
        self._lease_by_end = {end: self._leases.labels(end) for end in LEASE_ENDS}
        self._certificate_reload = {
            good: self._certificate_reloads.labels(outcome) for good, outcome in CERTIFICATE_OUTCOMES.items()
        }
        self._spans_by_end = {end: self._spans.labels(end) for end in SPAN_ENDS}
        self._refused_by_why = {why: self._refused.labels(why) for why in REFUSALS}
        for request_end in REQUEST_ENDS:
            self._write_requests.labels(request_end)
        for import_end in IMPORT_ENDS:
            self._imports.labels(import_end)
        self._error_by_operation = {operation: self._errors.labels(operation) for operation in OPERATIONS}

    def requests_in_hand(self) -> float:
        """HTTP requests and gRPC calls being answered now."""
        return self.in_flight.value + self.calls.in_flight.value

    def traffic(self, routes: frozenset[str], methods: frozenset[str]) -> tuple[int, tuple[int, ...]]:
        """How many requests for these HTTP routes and calls of these gRPC methods ended, and how many took how long, by
        the buckets of `SECONDS`."""
        by_route = self._request_seconds.counts(lambda labels: labels[0] in routes)
        by_method = self.calls.request_seconds.counts(lambda labels: labels[0] in methods)
        ended = self._requests.sum(lambda labels: labels[0] in routes)
        ended += self.calls.requests.sum(lambda labels: labels[0] in methods)
        return ended, tuple(map(sum, zip(by_route, by_method, strict=True)))

    def answers(self) -> dict[str, int]:
        """Reads answered, by where the answer came from."""
        return {source: count.value for source, count in self._read_by_source.items()}

    def loads(self) -> tuple[int, int]:
        """Load queries that the database answered, and how many a perfect cache would have needed."""
        return self._loaded.value, self._least_loads.value

    def expect_route(self, path: str, method: str) -> None:
        """Let the series of a route exist from the start, those of server errors too.

        A series that begins above zero shows no rise, so that its first errors would go unseen.
        """
        for status in ("200", "500", "503", "504"):
            self._requests.child(path, method, status)
        self._request_seconds.child(path, method)

    def request_ended(self, path: str, method: str, status: int, seconds: float) -> None:
        """`path` is the route and `method` one of a fixed set: both are labels."""
        self._requests.child(path, method, str(status)).value += 1
        self._request_seconds.child(path, method).observe(seconds)

    def route(self, path: str, method: str, status: int) -> tuple[Count, Distribution]:
        """Where requests to one route that end with one status are counted and timed, without looking it up."""
        return self._requests.child(path, method, str(status)), self._request_seconds.child(path, method)

    def hit(self, tier: Literal["l1", "l2"]) -> None:
        self._hit_by_tier[tier].value += 1

    def miss(self) -> None:
        self._misses.inc()

    def answered(self, source: Literal["l1", "l2", "origin", "shared", "stale"]) -> None:
        self._read_by_source[source].value += 1

    def shared(self) -> None:
        self._shares.value += 1

    def least_load(self) -> None:
        self._least_loads.value += 1

    def failed(self, operation: Literal["get", "take", "put", "release", "invalidate", "decode"]) -> None:
        self._error_by_operation[operation].inc()

    def stale(self, cause: Literal["grace", "error", "slow"]) -> None:
        self._stale_by_cause[cause].inc()

    def early_refresh(self) -> None:
        self._early.inc()

    def lease(self, end: Literal["won", "waited", "taken_over", "fenced"]) -> None:
        self._lease_by_end[end].inc()

    def refused(self, why: Literal["full", "timeout"]) -> None:
        self._refused_by_why[why].inc()

    def write_request(self, end: Literal["recorded", "repeated", "reused"]) -> None:
        self._write_requests.labels(end).inc()

    def import_ended(
        self,
        end: Literal["done", "repeated", "refused", "rejected", "late", "broken_off", "failed"],
        imported: int,
    ) -> None:
        self._imports.labels(end).inc()
        self._imported.inc(imported)

    def watch_imports(self, in_flight: Callable[[], int]) -> None:
        """Ask this at each scrape."""
        self._imports_in_flight.set_function(in_flight)

    def invalidated(self, count: int) -> None:
        self._invalidations.inc(count)

    def coherent(self, up: bool) -> None:
        self._coherent.set(up)

    def wakeups(self, up: bool) -> None:
        self._wakeups.set(up)

    def flushed(self) -> None:
        """This process forgot what it held."""
        self._flushes.inc()

    def announced(self, delay_s: float) -> None:
        """A change was announced, so long after it was made."""
        self._invalidation_seconds.observe(max(0.0, delay_s))

    def spans(self, end: Literal["exported", "failed", "dropped"], count: int) -> None:
        """So many spans came to this end. May be called by any thread."""
        self._spans_by_end[end].inc(count)

    def watch_bulkhead(self, in_use: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Ask these at each scrape."""
        self._bulkhead_in_use.set_function(in_use)
        self._bulkhead_waiting.set_function(waiting)

    def watch_l1(self, entries: Callable[[], int], size_bytes: Callable[[], int]) -> None:
        """Ask these at each scrape."""
        self._l1_entries.set_function(entries)
        self._l1_bytes.set_function(size_bytes)

    def watch_tasks(self, tasks: Callable[[], int]) -> None:
        """Ask this at each scrape."""
        self._tasks.set_function(tasks)

    def told(self, skipped: int) -> None:
        self._tellings.value += 1
        self._skips.value += skipped

    def watch_load_failed(self) -> None:
        self._watch_failures.inc()

    def watch_refused(self) -> None:
        self._watch_refusals.inc()

    def watch_watches(self, streams: Callable[[], int], ids: Callable[[], int]) -> None:
        """Ask these at each scrape."""
        self._watches.set_function(streams)
        self._watched.set_function(ids)

    def watch_pending(self, pending: Callable[[], int]) -> None:
        """Ask this at each scrape."""
        self._pending.set_function(pending)

    def loaded(self, seconds: float) -> None:
        """The database answered a load query, after this time."""
        self._loaded.value += 1
        self._load_seconds.observe(seconds)

    def breaker(self, name: str) -> Callable[[int], None]:
        """Where the breaker of this name reports its state's number; closed until it does."""
        gauge = self._breaker.labels(name)
        gauge.set(0)
        return gauge.set

    def certificate_reloaded(self, good: bool) -> None:
        """The files of the server's certificate have changed. May be called by any thread."""
        self._certificate_reload[good].inc()

    def drain(self) -> None:
        """The process was told to end."""
        self._draining.set(1)

    def exposition(self, accept: str, names: Collection[str] = ()) -> tuple[Iterator[bytes], str]:
        """All metrics, or the samples of these names, as text, in pieces, and its content type: OpenMetrics where an
        HTTP `Accept` header lists it."""
        return exposition(self.registry, accept, names)
