from __future__ import annotations

import re

from app.lab.experiment import Options
from app.lab.pages import html
from app.lab.run import run
from tests.lab.fake_experiments import broken, experiment, holds, lost


def test_the_report_has_every_experiment_with_table_chart_and_verdicts_and_how_to_repeat_it() -> None:
    outcomes = [
        run(experiment("counting", [holds(), lost()]), Options(seed=9)),
        run(experiment("breaking", [broken()]), Options(seed=9)),
    ]
    page = html(outcomes, ["python", "-m", "app", "lab", "--seed", "9"])
    for words in (
        "How many loads does counting take?",
        "How many loads does breaking take?",
        "Loads by strategy",
        "cannot be reproduced",
        "the mutex row: nobody waits for what is cached",
        "Counted by hand.",
        "python -m app lab --seed 9",
        "Processor",
        "stampede ",
    ):
        assert words in page, words
    overview = page.partition("<section>")[0]
    assert "<td>1 of 1</td><td>1</td>" in overview
    assert re.search(r"<tr class=strong><th scope=row>breaking: .*<td>0 of 1</td><td>0</td>", overview)
    assert "<td>5,000\N{NO-BREAK SPACE}ms</td>" in page, "a unit stays on the line of its number"
    assert page.count("<svg") == 2
    assert re.search(r"1 of 2</strong><span>claims hold", page)
    assert not re.search(r"<script|https?://(?!www\.w3\.org/2000/svg)", page), "the page fetches nothing"
