from __future__ import annotations

import pytest

from app.lab.xfetch.read_path import read_through, shape


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_behind_flight_and_lease_each_refresh_is_one_load_and_nobody_waits(beta: float) -> None:
    alone = read_through(shape(beta), 100.0, 4, processes=1, seed=5)
    fleet = read_through(shape(beta), 100.0, 4, processes=4, seed=5)
    assert (alone.loads, fleet.loads) == ([1] * 4, [1] * 4)
    assert alone.waited == 0


def test_without_the_lease_processes_that_draw_during_a_load_refresh_each_for_itself() -> None:
    seen = read_through(shape(1.0, lease=False), 100.0, 10, processes=4, seed=5)
    assert 1 < max(seen.loads) <= 4


@pytest.mark.parametrize("lease", [True, False])
def test_a_refresh_that_runs_into_the_expiry_is_one_load_too(lease: bool) -> None:
    """rβδ = 5: in many a refresh, reads find the value gone before the load has ended."""
    seen = read_through(shape(0.5, lease=lease), 10.0, 60, processes=1, seed=5)
    assert set(seen.loads) == {1}
    assert seen.waited > 60
    assert min(seen.gaps) < 1.0


def test_with_nothing_early_and_nothing_shared_all_who_come_during_the_load_load() -> None:
    seen = read_through(shape(0.0), 20.0, 10, processes=2, seed=5)
    assert sum(seen.loads) / 10 == pytest.approx(21, abs=6)


def test_a_seed_gives_the_same_reads() -> None:
    assert read_through(shape(0.5), 20.0, 2, processes=2, seed=1) == read_through(
        shape(0.5), 20.0, 2, processes=2, seed=1
    )
