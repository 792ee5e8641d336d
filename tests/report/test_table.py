from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from app.report.table import Row, Table, count, milliseconds, share, times


def test_runs_stand_side_by_side_on_the_console_and_nothing_is_taken_for_markup() -> None:
    out = StringIO()
    table = Table(
        "Result [b]", ["none", "[red]x"], [Row("Loads", ["5,195", "220"], strong=True), Row("p99", ["1", "–"])]
    )
    Console(file=out, width=80, color_system=None).print(table)
    lines = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert ["Result", "[b]"] in lines
    assert ["none", "[red]x"] in lines
    assert ["Loads", "5,195", "220"] in lines
    assert ["p99", "1", "–"] in lines


def test_a_row_must_have_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="'p50' has 1 cells for 2 columns"):
        Table("", ["a", "b"], [Row("p50", ["1"])])


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (count(7500), "7,500"),
        (count(None), "–"),
        (milliseconds(1.234), "1.23 ms"),
        (milliseconds(51.96), "52.0 ms"),
        (milliseconds(1512.4), "1,512 ms"),
        (milliseconds(None), "–"),
        (share(0.97066), "97.07 %"),
        (share(1), "100.00 %"),
        (share(0.999999), "99.99 %"),
        (share(0.000001), "0.01 %"),
        (share(0), "0.00 %"),
        (times(1), "1.00 ×"),
        (times(23.63), "23.6 ×"),
        (times(None), "–"),
    ],
)
def test_figures_are_written_with_their_units(shown: str, words: str) -> None:
    assert shown == words
