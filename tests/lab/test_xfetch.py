"""The experiment as a whole, with so few draws that only what is exact holds."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from app.lab.experiment import Options
from app.lab.result import Standing
from app.lab.xfetch import experiment as xfetch
from app.lab.xfetch.comparison import Effort
from app.lab.xfetch.read_path import Refreshes, read_through
from app.report.png import png

SMALL = xfetch._Effort(2_000, {10.0: 5, 100.0: 1, 1000.0: 1}, Effort(seeds=1, share=0.05))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfetch, "QUICK", SMALL)
    monkeypatch.setattr(xfetch, "BETAS", (0.5, 1.0))
    monkeypatch.setattr(xfetch, "CONTRAST_REFRESHES", 3)


def test_what_is_exact_holds_and_the_same_seed_gives_the_same_bytes() -> None:
    told: list[float] = []
    result = xfetch.run(Options(quick=True, seed=4, progress=lambda share, _doing: told.append(share)))
    assert told == sorted(told)
    exact = [each for each in result.verdicts if each.bar in ("1 exactly", "0", "lives begun")]
    assert len(exact) == 4
    assert {each.standing for each in exact} == {Standing.HOLDS}
    assert [len(table.rows) for table in result.tables] == [6, 6, 5]
    assert set(result.charts) == {"loads", "gap", "archive"}
    assert all(png(chart) for chart in result.charts.values())
    document = json.dumps(result.as_json())
    again = xfetch.run(Options(quick=True, seed=4))
    assert json.dumps(again.as_json()) == document
    assert [chart.svg for chart in again.charts.values()] == [chart.svg for chart in result.charts.values()]


def test_one_refresh_of_two_loads_behind_the_lease_breaks_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(*arguments: Any, **more: Any) -> Refreshes:
        seen = read_through(*arguments, **more)
        return dataclasses.replace(seen, loads=[*seen.loads[:-1], 2])

    monkeypatch.setattr(xfetch, "read_through", worse)
    paths = xfetch._paths({10.0: 2, 100.0: 1, 1000.0: 1}, Options())
    assert {each.standing for each in xfetch._path_verdicts(paths)} == {Standing.BROKEN}
