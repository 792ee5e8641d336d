from __future__ import annotations

import pytest

from app.scenarios.timeline import Mark, Second, Timeline, failures, p99_s, slowest_s
from tests.scenarios.answers import answer


def test_each_second_tells_of_the_answers_that_came_in_it() -> None:
    shown: list[Second | Mark] = []
    timeline = Timeline(shown.append)
    timeline.record(answer(source="l1", seconds=0.002))
    timeline.record(answer(error="timeout", seconds=9.0))
    timeline.tick(3, {"redis": 2})
    timeline.record(answer(source="stale", seconds=0.004))
    timeline.tick(None, {})
    first, second = timeline.seconds
    assert shown == [first, second]
    assert (first.requests, first.failed, first.loads, first.sources) == (2, 1, 3, {"l1": 1})
    assert first.p99_ms == pytest.approx(2.0)
    assert (second.requests, second.failed, second.loads, second.sources) == (1, 0, None, {"stale": 1})


def test_a_second_without_answers_has_no_percentiles() -> None:
    timeline = Timeline(lambda _: None)
    timeline.tick(0, {})
    assert (timeline.seconds[0].p50_ms, timeline.seconds[0].requests) == (None, 0)


def test_a_stretch_holds_what_was_due_in_it_whenever_it_was_answered() -> None:
    timeline = Timeline(lambda _: None)
    late = answer(due=1.9, seconds=5.0)
    for each in (answer(due=0.5), late, answer(due=2.0)):
        timeline.record(each)
    assert timeline.between(1.0, 2.0) == [late]


def test_a_mark_is_shown_and_kept() -> None:
    shown: list[Second | Mark] = []
    timeline = Timeline(shown.append)
    at = timeline.mark("broken")
    assert shown == timeline.marks
    assert timeline.marks[0].at == pytest.approx(at - timeline.began)


def test_percentiles_are_of_good_answers_and_the_slowest_is_of_all() -> None:
    answers = [answer(seconds=0.001), answer(seconds=3.0, error="timeout")]
    assert p99_s(answers) == pytest.approx(0.001)
    assert slowest_s(answers) == pytest.approx(3.0)
    assert failures(answers) == {"timeout": 1}
    assert (p99_s([]), slowest_s([])) == (None, None)
