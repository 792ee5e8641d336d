from __future__ import annotations

import pytest
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.telemetry.exposition import OPENMETRICS, SAMPLES, exposition
from app.telemetry.metrics import Metrics

KINDS = {"text/plain": "", OPENMETRICS: f"{OPENMETRICS}; version=1.0.0"}


def busy() -> Metrics:
    """Metrics with a family that has far more samples than go into a piece."""
    metrics = Metrics(mode="full", version="1", ttl_s=30.0)
    for number in range(20):
        metrics.expect_route(f"/{number}", "GET")
        metrics.request_ended(f"/{number}", "GET", 200, 0.003 * number)
    return metrics


class _Broken(Collector):
    """Whoever looks at it fails."""

    def describe(self) -> list[Metric]:
        return [Metric("broken", "Nobody asks for it.", "gauge")]

    def collect(self) -> list[Metric]:
        raise AssertionError("asked for")


def stable(text: bytes) -> list[bytes]:
    """The lines, without what the process has used by now."""
    return [line for line in text.splitlines() if not line.startswith((b"process_", b"python_gc_"))]


@pytest.mark.parametrize("accept", KINDS)
def test_the_pieces_are_together_what_the_library_makes_at_once(accept: str) -> None:
    metrics = busy()
    encode, content_type = choose_encoder(KINDS[accept])
    pieces, ours = metrics.exposition(accept)
    assert ours == content_type
    assert stable(b"".join(pieces)) == stable(encode(metrics.registry))


@pytest.mark.parametrize("accept", KINDS)
def test_no_piece_is_large_however_many_series_a_family_has(accept: str) -> None:
    pieces = list(busy().exposition(accept)[0])
    samples = [sum(not line.startswith(b"#") for line in piece.splitlines()) for piece in pieces]
    assert len(samples) > 10
    assert max(samples) < 2 * SAMPLES
    assert min(samples[:-1]) >= SAMPLES


@pytest.mark.parametrize("accept", KINDS)
def test_where_names_are_given_only_their_samples_are_there_and_nothing_else_is_looked_at(accept: str) -> None:
    metrics = busy()
    everything = stable(b"".join(metrics.exposition(accept)[0]))
    metrics.registry.register(_Broken())
    names = ["cache_hits_total", "http_request_duration_seconds_sum", "no_such_metric"]
    text = stable(b"".join(metrics.exposition(accept, names)[0]))
    samples = [line for line in text if not line.startswith(b"#")]
    begins = tuple(name.encode() + b"{" for name in names)
    assert sorted(samples) == sorted(line for line in everything if line.startswith(begins))
    assert len(samples) > 20
    assert (text[-1] == b"# EOF") == (accept == OPENMETRICS)


def test_every_sample_can_be_asked_for_by_its_name() -> None:
    metrics = busy()
    lines = b"".join(metrics.exposition("")[0]).decode().splitlines()
    names = {line.partition(" ")[0].partition("{")[0] for line in lines if not line.startswith("#")}
    assert {"process_start_time_seconds", "python_info", "http_in_flight_requests"} <= names
    assert [name for name in names if f"\n{name}" not in b"".join(metrics.exposition("", [name])[0]).decode()] == []


def test_of_an_unknown_name_there_is_nothing() -> None:
    assert b"".join(busy().exposition("", ["no_such_metric"])[0]) == b""


def test_a_piece_is_made_when_it_is_asked_for() -> None:
    metrics = busy()
    pieces, _ = exposition(metrics.registry, "")
    next(pieces)
    metrics.hit("l2")
    assert b'cache_hits_total{tier="l2"} 1.0' in b"".join(pieces)
