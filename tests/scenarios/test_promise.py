from __future__ import annotations

from app.scenarios.promise import Promise, Verdict, at_most, exactly, none_of


def test_none_of_nothing_is_no_promise_kept() -> None:
    assert not none_of("requests failed", 0, 0).ok
    assert none_of("requests failed", 0, 10).ok
    broken = none_of("requests failed", 2, 10, "2 × timeout")
    assert (broken.ok, broken.measured) == (False, "2 of 10 (2 × timeout)")


def test_a_figure_may_reach_its_bar_and_not_pass_it() -> None:
    assert at_most("p99", 10.0, 10.0, "ms") == Promise("p99", "≤ 10.0 ms", "10.0 ms", ok=True)
    assert not at_most("p99", 10.0, 10.01, "ms").ok


def test_what_could_not_be_measured_was_not_kept() -> None:
    for promise in (at_most("p99", 10.0, None, "ms"), exactly("loads", 0, None)):
        assert (promise.ok, promise.measured) == (False, "not measured")


def test_a_verdict_needs_every_promise_and_at_least_one() -> None:
    kept, broken = exactly("loads", 1, 1), exactly("loads", 1, 2)
    assert Verdict("x", [kept]).ok
    assert not Verdict("x", [kept, broken]).ok
    assert not Verdict("x", []).ok


def test_a_verdict_as_json_says_all_that_was_promised() -> None:
    assert Verdict("x", [exactly("loads", 1, 2)]).as_json() == {
        "scenario": "x",
        "ok": False,
        "promises": [{"what": "loads", "bar": "1", "measured": "2", "ok": False}],
    }
