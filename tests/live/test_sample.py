from __future__ import annotations

import math
from typing import Any

import pytest

from app.live.meter import Totals
from app.live.sample import Sample, StampedeFactor, between, parse, quantile, summed

BOUNDS = (0.001, 0.01, 0.1)


def totals(requests: int = 0, loads: int = 0, latencies: tuple[int, ...] = (0, 0, 0, 0), **answers: int) -> Totals:
    sources = {source: answers.get(source, 0) for source in ("l1", "l2", "origin", "shared", "stale")}
    return Totals(requests, loads, loads, sources, 3, latencies)


def test_rates_are_of_the_time_that_really_passed() -> None:
    before = totals(100, 10, l1=50, shared=7)
    after = totals(150, 12, (0, 50, 0, 0), l1=90, shared=17)
    fields = between("full", before, after, 2.0, BOUNDS).fields(1.0)
    assert (fields["requests_s"], fields["loads_s"], fields["hits_s"]["l1"], fields["shared_s"]) == (25, 1, 20, 5)
    assert fields["in_flight"] == 3
    assert 1 < fields["p50_ms"] < fields["p99_ms"] <= 10


def test_a_second_without_requests_has_no_latencies_and_no_factor() -> None:
    fields = between("full", totals(5), totals(5), 1.0, BOUNDS).fields(None)
    assert [fields[name] for name in ("p50_ms", "p95_ms", "p99_ms", "stampede_factor")] == [None] * 4


def test_quantiles_lie_where_histogram_quantile_puts_them() -> None:
    assert quantile([10, 0, 0, 0], BOUNDS, 0.5) == pytest.approx(0.0005)
    assert quantile([5, 0, 5, 0], BOUNDS, 0.5) == pytest.approx(0.001)
    assert quantile([5, 0, 5, 0], BOUNDS, 0.75) == pytest.approx(0.055)
    assert quantile([0, 0, 0, 7], BOUNDS, 0.5) == 0.1, "nothing is known above the last bound"
    assert quantile([0, 0, 0, 0], BOUNDS, 0.5) is None


def test_the_stampede_factor_looks_back_a_minute_and_no_further() -> None:
    factor = StampedeFactor()
    assert factor.after(Sample("none")) is None
    assert factor.after(Sample("none", loads=100, least_loads=1)) == 100
    for _ in range(59):
        assert factor.after(Sample("none", loads=1, least_loads=1)) != 1
    assert factor.after(Sample("none", loads=1, least_loads=1)) == 1


def test_what_one_tells_another_understands() -> None:
    told = between("fleet", totals(), totals(9, 3, (9, 0, 0, 0), l2=6, origin=3), 1.0, BOUNDS).fields(1.0)
    heard = parse(told)
    assert heard is not None
    assert heard.fields(1.0) == told


@pytest.mark.parametrize(
    "wrong",
    [
        {"loads_s": -1},
        {"loads_s": math.nan},
        {"loads_s": math.inf},
        {"loads_s": 10**400},
        {"least_loads_s": 1e308},
        {"loads_s": "many"},
        {"loads_s": True},
        {"in_flight": None},
        {"mode": "x" * 33},
        {"mode": 5},
        {"hits_s": []},
        {"hits_s": {"l1": "few"}},
        {"p50_ms": "fast"},
        {"up": False},
    ],
)
def test_what_is_no_sample_is_taken_for_none(wrong: dict[str, Any]) -> None:
    assert parse({**Sample("full").fields(None), **wrong}) is None
    assert parse([]) is None


def test_replicas_add_up_and_the_worst_latency_stands_for_all() -> None:
    one = Sample("full", requests=10, loads=1, least_loads=1, hits={"l1": 9}, in_flight=2, latencies_ms={"p50_ms": 1.0})
    two = Sample("full", requests=5, loads=1, least_loads=1, hits={"l1": 4}, latencies_ms={"p50_ms": 2.0})
    fields = summed([one, two, Sample("full", up=False)]).fields(None)
    assert (fields["replicas"], fields["requests_s"], fields["in_flight"]) == (2, 15, 2)
    assert (fields["hits_s"]["l1"], fields["p50_ms"], fields["p99_ms"]) == (13, 2.0, None)
    assert not summed([Sample("full", up=False)] * 2).up
