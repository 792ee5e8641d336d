from __future__ import annotations

import json

from app.lab.experiment import Options
from app.lab.run import run
from tests.lab.fake_experiments import broken, experiment, holds, lost, result


def test_a_figure_that_cannot_be_reproduced_fails_nothing_a_broken_claim_and_no_claim_do() -> None:
    assert result([holds(), lost()]).ok
    assert not result([holds(), broken()]).ok
    assert not result([]).ok


def test_the_json_has_verdicts_tables_and_figures_and_apart_from_them_what_differs_from_run_to_run() -> None:
    times = iter([10.0, 12.5])
    outcome = run(experiment("counting", [holds(), lost()]), Options(quick=True, seed=3), lambda: next(times))
    document = json.loads(json.dumps(outcome.as_json()))
    run_ = document.pop("run")
    assert document == {
        "experiment": "counting",
        "question": "How many loads does counting take?",
        "quick": True,
        "seed": 3,
        "ok": True,
        "verdicts": [
            {
                "claim": "one load",
                "expected": "1",
                "measured": "1 load",
                "bar": "1",
                "standing": "holds",
                "reason": "",
            },
            {
                "claim": "the mutex row",
                "expected": "5,000 ms",
                "measured": "51 ms",
                "bar": "–",
                "standing": "cannot be reproduced",
                "reason": "nobody waits for what is cached",
            },
        ],
        "tables": [{"title": "Loads by strategy", "columns": ["loads"], "rows": [{"label": "plain", "cells": ["7"]}]}],
        "figures": {"loads": 7},
        "notes": ["Counted by hand."],
    }
    assert run_["seconds"] == 2.5
    assert {"began", "version", "packages", "processor", "system", "python"} <= run_.keys()
