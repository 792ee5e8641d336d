from __future__ import annotations

import pytest

from app.lab.approaches import experiment as approaches
from app.lab.approaches import ways
from app.lab.approaches.experiment import AT_ONCE, FLEETS, MUTEX_ALONE, MUTEX_CACHED, ONE_BY_ONE, SINGLEFLIGHT, Measured
from app.lab.approaches.ways import Answered, Way
from app.lab.errors import LabError
from app.lab.process import Mode
from app.lab.result import Standing
from app.report.png import png

GOOD = {
    ONE_BY_ONE: Measured([Answered(100, 5_060.0)]),
    AT_ONCE: Measured([Answered(100, 51.0)]),
    MUTEX_ALONE: Measured([Answered(100, 5_070.0)]),
    MUTEX_CACHED: Measured([Answered(1, 51.0)]),
    SINGLEFLIGHT: Measured([Answered(1, 90.0), Answered(1, 51.0), Answered(1, 80.0)]),
    FLEETS[0][0]: Measured([Answered(4, 60.0)]),
    FLEETS[1][0]: Measured([Answered(1, 60.0)]),
    FLEETS[2][0]: Measured([Answered(1, 60.0)]),
}


@pytest.mark.parametrize(
    ("way", "calls"),
    [
        (ways.one_by_one, 5),
        (ways.all_at_once, 5),
        (ways.mutex_alone, 5),
        (ways.mutex_and_cache, 1),
        (ways.singleflight, 1),
    ],
)
async def test_each_way_reaches_the_backend_as_often_as_it_must(way: Way, calls: int) -> None:
    answered = await way(5)
    assert answered.calls == calls
    assert answered.elapsed_ms >= 0.95 * ways.LOAD_S * 1e3


@pytest.mark.parametrize(("mode", "calls"), [("singleflight", ways.PROCESSES), ("fleet", 1), ("full", 1)])
async def test_a_fleet_on_a_real_server_loads_once_where_it_has_a_lease(redis_url: str, mode: Mode, calls: int) -> None:
    async with ways.fleet(mode, redis_url, prefix=f"test-{mode}") as fleet:
        first = await fleet.ask(40, "1")
        again = await fleet.ask(40, "1")
    assert (first.calls, again.calls) == (calls, 0)


def test_the_published_mutex_row_cannot_be_had_and_all_the_rest_holds() -> None:
    result = approaches.result(GOOD)
    assert result.ok
    lost = [verdict for verdict in result.verdicts if verdict.standing is Standing.NOT_REPRODUCED]
    assert [(verdict.claim, verdict.expected) for verdict in lost] == [("mutex only", "1 call, 5,000 ms")]
    assert lost[0].measured == "100 calls, 5,070 ms; or 1 call, 51.0 ms"
    assert "do not go together" in lost[0].reason
    assert set(result.figures) == set(GOOD)
    assert all(png(chart) for chart in result.charts.values())


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        (SINGLEFLIGHT, Answered(2, 51.0)),
        (SINGLEFLIGHT, Answered(1, 52.5)),
        (FLEETS[1][0], Answered(2, 60.0)),
        (FLEETS[0][0], Answered(5, 60.0)),
    ],
)
def test_a_call_too_many_or_a_slow_best_run_breaks_the_claim(name: str, bad: Answered) -> None:
    assert not approaches.result({**GOOD, name: Measured([bad])}).ok


async def test_a_redis_that_is_not_there_is_told() -> None:
    with pytest.raises(LabError, match="no subscription at redis://"):
        async with ways.fleet("fleet", "redis://127.0.0.1:1/0", prefix="test", ready_s=0.3):
            raise AssertionError
