"""A replica's metrics, by name."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from app.loadtest.http import Connection


class Scraped:
    """One reading of `/metrics`; `scraped("cache_hits_total", tier="l2")` is a series' value, 0 where there is none."""

    def __init__(self, text: str) -> None:
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, /, **labels: str) -> float:
        return self._values.get((name, frozenset(labels.items())), 0.0)

    def named(self, name: str) -> Mapping[frozenset[tuple[str, str]], float]:
        return {labels: value for (known, labels), value in self._values.items() if known == name}


async def scrape(http_url: str) -> Scraped:
    parts = urlsplit(http_url)
    assert parts.hostname is not None
    assert parts.port is not None
    connection = Connection(parts.hostname, parts.port, 10.0)
    try:
        response = await connection.get(b"/metrics")
    finally:
        connection.close()
    assert response.status == 200
    return Scraped(response.body.decode())
