from __future__ import annotations

import pytest

from app.scenarios.catalogue import SCENARIOS, find
from app.scenarios.errors import OptionsError
from app.scenarios.options import Options


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"duration_s": 0.0}, "--duration must be from 2"),
        ({"duration_s": float("nan")}, "--duration must be from 2"),
        ({"replicas": 0}, "--replicas must be from 1"),
        ({"rate": -1.0}, "--rate must be from 1"),
        ({"keys": 501}, "--keys must be from 1 to 500"),
        ({"cold_keys": 0}, "--cold-keys must be from 1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_flags_name(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        Options(**wrong)  # type: ignore[arg-type]


def test_flags_that_are_not_given_leave_the_scenarios_own() -> None:
    options = Options(duration_s=10, replicas=8).with_flags(
        duration_s=None, replicas=2, rate=None, keys=None, cold_keys=None, settings={"APP_L1_ENABLED": "false"}
    )
    assert (options.duration_s, options.replicas, options.settings) == (10, 2, {"APP_L1_ENABLED": "false"})


def test_a_name_that_is_nearly_right_is_guessed() -> None:
    with pytest.raises(OptionsError, match="did you mean redis-outage"):
        find("redis-outag")
    with pytest.raises(OptionsError, match="there are redis-outage, redis-slow"):
        find("earthquake")


def test_every_scenario_has_a_name_of_its_own_and_is_found_by_it() -> None:
    assert [find(scenario.name) for scenario in SCENARIOS] == list(SCENARIOS)
