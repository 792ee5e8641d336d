"""The scenarios there are."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from app.scenarios import (
    invalidation,
    postgres_outage,
    postgres_slow,
    redis_outage,
    redis_slow,
    replica_crash,
    thundering_restart,
)
from app.scenarios.errors import OptionsError
from app.scenarios.options import Options
from app.scenarios.promise import Promise
from app.scenarios.stage import Stage


@dataclass(frozen=True, slots=True)
class Scenario:
    """`breaks` says in a sentence what it breaks, `settings` what the replicas are told, `play` does it all."""

    name: str
    breaks: str
    play: Callable[[Stage], Awaitable[list[Promise]]]
    settings: Callable[[Options], Mapping[str, str]]
    defaults: Options


SCENARIOS: Sequence[Scenario] = (
    Scenario(
        "redis-outage",
        "Redis is killed under load while writes land, and comes back empty.",
        redis_outage.play,
        redis_outage.settings,
        Options(),
    ),
    Scenario(
        "redis-slow",
        "Redis hangs under load while writes land, and goes on with what it held.",
        redis_slow.play,
        redis_slow.settings,
        Options(),
    ),
    Scenario(
        "postgres-outage",
        "PostgreSQL is killed under load, and comes back.",
        postgres_outage.play,
        postgres_outage.settings,
        Options(),
    ),
    Scenario(
        "postgres-slow",
        "Loads take two seconds, and thousands of cold keys are asked for at once.",
        postgres_slow.play,
        postgres_slow.settings,
        Options(duration_s=10, replicas=2),
    ),
    Scenario(
        "replica-crash",
        "The replica that loads a cold key for all is killed in mid-load.",
        replica_crash.play,
        replica_crash.settings,
        Options(duration_s=10, rate=100),
    ),
    Scenario(
        "invalidation",
        "Templates change behind the app's back; then the connections that announce changes are cut for five seconds.",
        invalidation.play,
        invalidation.settings,
        Options(duration_s=10, rate=100),
    ),
    Scenario(
        "thundering-restart",
        "All replicas are killed at once under load, and started again with nothing in memory.",
        thundering_restart.play,
        thundering_restart.settings,
        Options(duration_s=10, replicas=8, rate=200),
    ),
)


def find(name: str) -> Scenario:
    """Raises `OptionsError` where there is none of this name."""
    names = [scenario.name for scenario in SCENARIOS]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        guess = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise OptionsError(f"there is no scenario {name}; {guess}")
    return SCENARIOS[names.index(name)]
