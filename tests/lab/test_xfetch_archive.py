from __future__ import annotations

import random

import pytest

from app.lab.xfetch.archive import FORK_S, LOAD_S, PAUSES_MS, STRATEGIES, WORKERS, play
from app.lab.xfetch.comparison import plain_loads_a_life


def test_with_the_lease_a_life_is_one_load_where_without_it_most_workers_load() -> None:
    plain, locked = play(STRATEGIES["plain"], 45.0, 1), play(STRATEGIES["locked"], 45.0, 1)
    assert locked.loads == 2
    assert locked.contended == locked.misses - 2
    assert plain.loads == plain.misses > 20 * locked.loads / 2
    assert locked.reads == pytest.approx(45 * 93.7, rel=0.05), "as many a second as Internet Archive's"


def test_early_refresh_and_lease_together_miss_nothing_and_load_once_a_life() -> None:
    both = play(STRATEGIES["both"], 60.0, 1)
    assert both.misses == 0
    assert both.loads == both.earlies - both.contended
    assert both.loads in (2, 3, 4)


def test_early_refresh_alone_misses_nothing_but_loads_more_than_once_a_life() -> None:
    for name in ("xfetch", "xfetch by whole seconds"):
        alone = play(STRATEGIES[name], 100.0, 1)
        assert alone.misses == 0
        assert alone.loads > 6


def test_the_derived_crowd_is_the_share_of_workers_whose_turn_comes_during_a_load() -> None:
    draws = random.Random(1)
    come = total = 0
    for _ in range(4_000):
        at, looked_at = 0.0, 10.0 + draws.random()
        while at <= looked_at:
            at += FORK_S + draws.randint(*PAUSES_MS) / 1_000
        total += 1
        come += at <= looked_at + LOAD_S
    assert plain_loads_a_life() == pytest.approx(1 + (WORKERS - 1) * come / total, rel=0.03)
