"""Outcomes as tables on the console, as JSON and as one page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from app import __version__
from app.lab.result import Result, Standing
from app.lab.run import PACKAGES, Outcome
from app.report.html import Block, Commands, Facts, Highlight, Highlights, Page, Paragraph, Section, render
from app.report.machine import machine, packages
from app.report.table import Row, Table

NO_BREAK = "\N{NO-BREAK SPACE}"
STYLES = {Standing.HOLDS: None, Standing.BROKEN: "bold red", Standing.NOT_REPRODUCED: "yellow"}


def verdict_table(result: Result) -> RichTable:
    """The verdicts on the console."""
    table = RichTable(title=Text("Verdicts"), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("claim", overflow="fold")
    for heading in ("published or derived", "measured", "bar", "verdict"):
        table.add_column(heading, justify="right", overflow="fold")
    for each in result.verdicts:
        cells = (each.claim, each.expected, each.measured, each.bar, each.standing.value)
        table.add_row(*map(Text, cells), style=STYLES[each.standing])
    return table


def html(outcomes: Sequence[Outcome], command: Sequence[str]) -> str:
    """One page about them all; `command` repeats them."""
    verdicts = [verdict for outcome in outcomes for verdict in outcome.result.verdicts]
    hold = sum(verdict.standing is Standing.HOLDS for verdict in verdicts)
    lost = sum(verdict.standing is Standing.NOT_REPRODUCED for verdict in verdicts)
    seconds = sum(outcome.seconds for outcome in outcomes)
    opening = Highlights(
        [
            Highlight(f"{hold} of {len(verdicts) - lost}", "claims hold", "measured against published or derived bars"),
            Highlight(f"{lost}", "published figures not reproduced", "each with the reason"),
            Highlight(
                f"{len(outcomes)}", "experiment" if len(outcomes) == 1 else "experiments", f"in {seconds:,.0f} s"
            ),
        ]
    )
    options = outcomes[0].options
    facts = [
        ("Experiments", ", ".join(outcome.experiment.name for outcome in outcomes)),
        ("Length", "quick: less of each, smaller fleets, wider intervals" if options.quick else "full"),
        ("Seed", f"{options.seed}"),
        ("Began", f"{outcomes[0].began:%Y-%m-%d %H:%M:%S} UTC"),
        ("Version", f"stampede {__version__}"),
        *machine(),
        ("Packages", packages(PACKAGES)),
    ]
    return render(
        Page(
            "The lab: cache stampedes, measured",
            "Experiments that run the cache's own code, each beside what was published or derived.",
            [
                *(Section(f"{outcome.experiment.name}", _blocks(outcome)) for outcome in outcomes),
                Section("What was run", [Facts(facts)]),
                Section("Run it again", [Commands([shlex.join(command)])]),
            ],
            [opening, _overview(outcomes)],
        )
    )


def _overview(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for outcome in outcomes:
        standings = [verdict.standing for verdict in outcome.result.verdicts]
        lost = standings.count(Standing.NOT_REPRODUCED)
        cells = [
            f"{standings.count(Standing.HOLDS)} of {len(standings) - lost}",
            f"{lost}",
            f"{outcome.seconds:,.1f}{NO_BREAK}s",
        ]
        rows.append(
            Row(f"{outcome.experiment.name}: {outcome.experiment.question}", cells, strong=not outcome.result.ok)
        )
    return Table("", ["claims hold", "not reproduced", "took"], rows, wraps=True)


def _blocks(outcome: Outcome) -> list[Block]:
    result = outcome.result
    verdicts = Table(
        "Verdicts",
        ["published or derived", "measured", "bar", "verdict"],
        [
            Row(
                each.claim,
                [_unbroken(each.expected), _unbroken(each.measured), _unbroken(each.bar), each.standing.value],
                strong=each.standing is Standing.BROKEN,
            )
            for each in result.verdicts
        ],
        wraps=True,
    )
    reasons = [Paragraph(f"{each.claim}: {each.reason}") for each in result.verdicts if each.reason]
    return [
        Paragraph(outcome.experiment.question),
        *result.tables,
        *result.charts.values(),
        verdicts,
        *reasons,
        *map(Paragraph, result.notes),
    ]


def _unbroken(cell: str) -> str:
    """With every sign and unit on the line of its number."""
    return re.sub(r"(?<=[≤≥±]) |(?<=\d) (?=m?s\b)", NO_BREAK, cell)
