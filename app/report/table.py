"""Tables of figures: one column a run, side by side, on the console and in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: a label, a cell for each column, and whether to stress it."""

    label: str
    cells: Sequence[str]
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`wraps` is for cells that are sentences. Raises `ValueError` where a row has not one cell a column."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    wraps: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"row {row.label!r} has {len(row.cells)} cells for {len(self.columns)} columns")

    def __rich__(self) -> RichTable:
        """The table on a rich console."""
        table = RichTable(title=Text(self.title), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        table.add_column("", no_wrap=True)
        for column in self.columns:
            table.add_column(Text(column), justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(Text(row.label), *map(Text, row.cells), style="bold" if row.strong else None)
        return table


def count(value: int | None) -> str:
    """`7500` as `7,500`; a dash where there is no value."""
    return "–" if value is None else f"{value:,}"


def milliseconds(value: float | None) -> str:
    """Three significant digits and the unit."""
    if value is None:
        return "–"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"


def share(value: float) -> str:
    """`0.9706` as `97.06 %`; never rounded up to 100 %, nor down to 0 %, from something else."""
    shown = f"{value:.2%}"
    if shown == "100.00%" and value < 1:
        shown = "99.99%"
    elif shown == "0.00%" and value > 0:
        shown = "0.01%"
    return shown.replace("%", " %")


def times(value: float | None) -> str:
    """A ratio, as `23.6 ×`."""
    if value is None:
        return "–"
    return f"{value:,.2f} ×" if value < 10 else f"{value:,.1f} ×"
