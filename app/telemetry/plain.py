"""Counters and histograms for the hottest path: plain numbers while counting, metric families when scraped.

prometheus-client's own take a lock and several calls for each count, which is most of what a cache hit costs. These are
for one thread, the event loop's; a scrape from it sees each metric whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Count:
    """A number. Add to `value` directly."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Distribution:
    """How often values fell into which bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class PlainMetric(Collector, ABC):
    """What all kinds have: a name, help, labels, and children by label values."""

    type: str

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        registry.register(self)

    def describe(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        return self.collect()

    @abstractmethod
    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]: ...


class PlainCounter(PlainMetric):
    """A counter; `name` as it is exposed, without `_total`."""

    type = "counter"

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self._children: dict[tuple[str, ...], Count] = {}
        super().__init__(name, documentation, labels, registry)
        if not labels:
            self.child()

    def child(self, *values: str) -> Count:
        """The count for these label values, which exists from now on. Keep it: looking it up costs more than adding."""
        count = self._children.get(values)
        if count is None:
            count = self._children[values] = Count()
        return count

    def sum(self, where: Callable[[tuple[str, ...]], bool]) -> int:
        """The sum of the counts whose label values are `where` says."""
        return sum(count.value for values, count in self._children.items() if where(values))

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        for values, count in self._children.items():
            family.add_metric(values, count.value)
        yield family


class PlainGauge(PlainMetric):
    """A gauge without labels. Change `count.value` directly."""

    type = "gauge"

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry) -> None:
        self.count = Count()
        super().__init__(name, documentation, (), registry)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(self.name, self.documentation)
        family.add_metric((), self.count.value)
        yield family


class PlainHistogram(PlainMetric):
    """A histogram with the upper bounds `bounds`, and one bucket for all above them."""

    type = "histogram"

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._bounds = tuple(bounds)
        self._children: dict[tuple[str, ...], Distribution] = {}
        super().__init__(name, documentation, labels, registry)

    def child(self, *values: str) -> Distribution:
        """The distribution for these label values, which exists from now on. Keep it, as that of a counter."""
        distribution = self._children.get(values)
        if distribution is None:
            distribution = self._children[values] = Distribution(self._bounds)
        return distribution

    def counts(self, where: Callable[[tuple[str, ...]], bool]) -> tuple[int, ...]:
        """How many values fell into each bucket, of the distributions whose label values are `where` says."""
        found = [distribution.counts for values, distribution in self._children.items() if where(values)]
        return tuple(map(sum, zip([0] * (len(self._bounds) + 1), *found, strict=True)))

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        for values, distribution in self._children.items():
            buckets = list(zip(names, accumulate(distribution.counts), strict=True))
            family.add_metric(values, buckets, distribution.sum)
        yield family
